// SPDX-License-Identifier: LGPL-2.1-or-later
// Plans carried out pixel by pixel, as a GPU does it, against the CPU's own way.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "cuda/pixel_grid.h"
#include "cuda/resample_index.h"
#include "preprocess/tiles.h"

namespace vlm {
namespace {

Frame noise(int width, int height, uint32_t seed) {
  std::mt19937 random(seed);
  Frame frame{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  for (uint8_t& byte : frame.rgb) byte = static_cast<uint8_t>(random());
  return frame;
}

TapsView view_of(const Taps& taps) {
  return {taps.spans.data(), taps.weights.data(), taps.stride};
}

/// Rows of the canvas that the pass along reads, made as wide as the window.
std::vector<uint8_t> across(const Frame& frame, const ImagePlan& plan, int64_t first,
                            int64_t rows) {
  const Taps taps = resample_taps(plan.canvas_width, plan.width, plan.window.left,
                                  plan.window.width, plan.filter);
  std::vector<uint8_t> out(static_cast<size_t>(rows * plan.window.width * 3));
  AcrossArgs args;
  args.rgb = frame.rgb.data();
  args.width = plan.picture.width;
  args.height = plan.picture.height;
  args.left = plan.picture.left;
  args.top = plan.picture.top;
  std::copy(plan.fill.begin(), plan.fill.end(), args.fill);
  args.taps = view_of(taps);
  args.first_row = first;
  args.out = out.data();
  args.rows = rows;
  args.columns = plan.window.width;
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = 0; x < args.columns; ++x) across_pixel(args, x, y);
  }
  return out;
}

std::vector<float> carried_out(const Frame& frame, const ImagePlan& plan,
                               const PixelLevels& levels) {
  std::vector<float> out(static_cast<size_t>(plan.out_width * plan.out_height * 3), -100.0F);
  AlongArgs args;
  args.left = plan.left;
  args.top = plan.top;
  args.levels = levels[0].data();
  args.out = out.data();
  args.out_width = plan.out_width;
  args.out_height = plan.out_height;
  Taps taps;
  std::vector<uint8_t> columns;
  if (plan.window.width > 0 && plan.window.height > 0) {
    taps = resample_taps(plan.canvas_height, plan.height, plan.window.top, plan.window.height,
                         plan.filter);
    args.first_row = taps.spans.front().first;
    columns = across(frame, plan, args.first_row,
                     taps.spans.back().first + taps.spans.back().count - args.first_row);
    args.in = columns.data();
    args.taps = view_of(taps);
    args.rows = plan.window.height;
    args.columns = plan.window.width;
  }
  for (int64_t y = 0; y < plan.out_height; ++y) {
    for (int64_t x = 0; x < plan.out_width; ++x) along_pixel(args, x, y);
  }
  return out;
}

void expect_equal(const Frame& frame, const ModelConfig& model, const PreprocessorConfig& config,
                  AspectRatio aspect_ratio) {
  const auto plans = plan_picture(frame.height, frame.width, model, config, aspect_ratio);
  const auto pixels = preprocess_picture(frame, model, config, aspect_ratio);
  ASSERT_EQ(plans.ok(), pixels.ok()) << frame.width << "x" << frame.height;
  if (!plans) {
    EXPECT_EQ(plans.error().message, pixels.error().message);
    return;
  }
  ASSERT_EQ(static_cast<int64_t>(plans->size()), pixels->images);
  const PixelLevels levels = pixel_levels(config);
  std::vector<float> all;
  for (const ImagePlan& plan : *plans) {
    const std::vector<float> one = carried_out(frame, plan, levels);
    all.insert(all.end(), one.begin(), one.end());
  }
  EXPECT_EQ(all, pixels->values) << frame.width << "x" << frame.height;
}

const std::vector<std::pair<int, int>> kShapes = {{1, 1},   {1, 9},   {7, 1},   {24, 24}, {23, 57},
                                                  {64, 10}, {10, 64}, {97, 83}, {200, 3}, {40, 24}};

TEST(plan, every_filter_and_shape_is_resized_as_on_the_cpu) {
  for (int filter = 0; filter <= 5; ++filter) {
    PreprocessorConfig config;
    config.resample = filter;
    config.shortest_edge = config.crop_height = config.crop_width = 24;
    for (const auto& [width, height] : kShapes) {
      for (const AspectRatio aspect_ratio : {AspectRatio::kCrop, AspectRatio::kPad}) {
        expect_equal(noise(width, height, 1), {}, config, aspect_ratio);
      }
    }
  }
}

TEST(plan, every_configuration_is_followed) {
  std::mt19937 random(7);
  const auto one_in = [&](uint32_t n) { return random() % n == 0; };
  for (int round = 0; round < 300; ++round) {
    PreprocessorConfig config;
    config.do_resize = !one_in(4);
    config.do_center_crop = !one_in(3);
    config.do_rescale = !one_in(3);
    config.do_normalize = !one_in(3);
    config.do_pad = one_in(3);
    config.resample = static_cast<int>(random() % 6);
    config.shortest_edge = 1 + random() % 40;
    if (one_in(3)) {
      config.shortest_edge.reset();
      config.resize_height = 1 + random() % 40;
      config.resize_width = 1 + random() % 40;
    }
    config.crop_height = 1 + random() % 50;
    config.crop_width = 1 + random() % 50;
    const Frame frame = noise(1 + static_cast<int>(random() % 70),
                              1 + static_cast<int>(random() % 70), static_cast<uint32_t>(round));
    expect_equal(frame, {}, config, AspectRatio::kAuto);
  }
}

TEST(plan, tiles_are_those_of_the_cpu) {
  for (const Layout layout : {Layout::kHuggingFace, Layout::kOriginal}) {
    ModelConfig model;
    model.layout = layout;
    model.vision.image_size = 24;
    model.vision.patch_size = 4;
    model.anyres.sizes = {{24, 48}, {48, 24}, {48, 48}, {72, 24}, {24, 72}};
    PreprocessorConfig config;
    config.shortest_edge = config.crop_height = config.crop_width = 24;
    for (const auto& [width, height] : kShapes) {
      expect_equal(noise(width, height, 3), model, config, AspectRatio::kAnyres);
    }
  }
}

TEST(plan, tiles_that_are_resized_again_have_none) {
  ModelConfig model;
  model.vision.image_size = 24;
  model.anyres.sizes = {{24, 48}};
  PreprocessorConfig config;
  config.shortest_edge = 20;
  config.crop_height = config.crop_width = 24;
  const auto plans = plan_picture(30, 30, model, config, AspectRatio::kAnyres);
  ASSERT_TRUE(plans);
  EXPECT_TRUE(plans->empty());
}

TEST(plan, a_grid_has_a_thread_for_each_pixel) {
  EXPECT_EQ(grid_blocks(0, 256), 0);
  EXPECT_EQ(grid_blocks(1, 256), 1);
  EXPECT_EQ(grid_blocks(256, 256), 1);
  EXPECT_EQ(grid_blocks(257, 256), 2);
  EXPECT_EQ(grid_blocks(((int64_t{1} << 31) - 1) * 256, 256), (int64_t{1} << 31) - 1);
  EXPECT_EQ(grid_blocks(((int64_t{1} << 31) - 1) * 256 + 1, 256), 0);
}

}  // namespace
}  // namespace vlm
