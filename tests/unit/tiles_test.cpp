// SPDX-License-Identifier: LGPL-2.1-or-later
#include "preprocess/tiles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace vlm {
namespace {

const TileSizes kPublished = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};

/// LLaVA-1.6 with CLIP's large tower: tiles of 336 pixels, 24 × 24 patches each.
ModelConfig published(Layout layout, PatchMerge merge = PatchMerge::kSpatialUnpad) {
  ModelConfig model;
  model.layout = layout;
  model.vision.image_size = 336;
  model.vision.patch_size = 14;
  model.aspect_ratio = AspectRatio::kAnyres;
  model.anyres.merge = merge;
  model.anyres.sizes = kPublished;
  if (layout == Layout::kOriginal) {  // the file has width first
    for (auto& [height, width] : model.anyres.sizes) std::swap(height, width);
  }
  return model;
}

int64_t tokens(const ModelConfig& model, int64_t width, int64_t height) {
  return picture_tokens(model, picture_grid(model, AspectRatio::kAnyres, height, width));
}

Frame numbered_frame(int width, int height) {
  Frame frame{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  for (size_t i = 0; i < frame.rgb.size(); ++i) frame.rgb[i] = static_cast<uint8_t>(i % 251 + 1);
  return frame;
}

/// A tower of `side` pixels for pictures that stay bytes, each patch one pixel.
ModelConfig small_model(int64_t side, TileSizes sizes) {
  ModelConfig model = published(Layout::kHuggingFace);
  model.vision.image_size = side;
  model.vision.patch_size = 1;
  model.anyres.sizes = std::move(sizes);
  return model;
}

PreprocessorConfig bytes_of(int64_t side) {
  PreprocessorConfig config;
  config.shortest_edge = config.crop_height = config.crop_width = side;
  config.do_rescale = config.do_normalize = false;
  return config;
}

PixelTensor tiles_of(const Frame& frame, const ModelConfig& model,
                     const PreprocessorConfig& config) {
  auto pixels = preprocess_picture(frame, model, config, AspectRatio::kAnyres);
  EXPECT_TRUE(pixels) << (pixels ? "" : pixels.error().message);
  return pixels ? std::move(*pixels) : PixelTensor{};
}

float at(const PixelTensor& pixels, int64_t image, int64_t channel, int64_t y, int64_t x) {
  return pixels.values[static_cast<size_t>(
      ((image * pixels.channels + channel) * pixels.height + y) * pixels.width + x)];
}

TEST(tiles, token_counts_are_those_of_both_references) {
  for (const Layout layout : {Layout::kHuggingFace, Layout::kOriginal}) {
    const ModelConfig model = published(layout);
    EXPECT_EQ(tokens(model, 640, 480), 2340);
    EXPECT_EQ(tokens(model, 480, 640), 2352);
    EXPECT_EQ(tokens(model, 1000, 300), 2182);
    EXPECT_EQ(tokens(model, 1024, 1024), 2928);
    EXPECT_EQ(tokens(model, 333, 500), 1476);
  }
}

TEST(tiles, a_tie_goes_to_the_first_size_of_the_layout) {
  EXPECT_EQ(tokens(published(Layout::kOriginal), 300, 200), 976);
  EXPECT_EQ(tokens(published(Layout::kHuggingFace), 300, 200), 1464);
  EXPECT_EQ(best_size({{336, 672}, {672, 336}}, 1, 1), (std::pair<int64_t, int64_t>{336, 672}));
  EXPECT_EQ(best_size({{672, 672}, {336, 336}}, 1, 1), (std::pair<int64_t, int64_t>{336, 336}));
}

TEST(tiles, a_picture_too_flat_for_any_size_gets_the_smallest) {
  EXPECT_EQ(best_size({{672, 672}, {336, 672}, {336, 1008}}, 1, 100'000),
            (std::pair<int64_t, int64_t>{336, 672}));
}

// For every picture of up to 1200 × 1200 pixels.
TEST(tiles, rounded_lines_are_those_of_exact_division_and_truncated_ones_nearly_so) {
  const ModelConfig rounding = published(Layout::kHuggingFace);
  ModelConfig truncating = rounding;
  truncating.layout = Layout::kOriginal;
  int64_t truncated = 0;
  for (int64_t height = 1; height <= 1200; ++height) {
    for (int64_t width = 1; width <= 1200; ++width) {
      const TileGrid grid = picture_grid(rounding, AspectRatio::kAnyres, height, width);
      const int64_t rows = grid.rows * 24, columns = grid.columns * 24;
      const bool flat = width * rows > columns * height;
      const int64_t lines = flat ? height * columns / width : width * rows / height;
      const int64_t most = flat ? rows : columns;
      const int64_t expected = most - (most - lines) / 2 * 2;
      const Window kept = kept_patches(rounding, grid);
      const Window other = kept_patches(truncating, grid);
      ASSERT_EQ(flat ? kept.height : kept.width, expected) << width << "×" << height;
      ASSERT_EQ(flat ? kept.width : kept.height, flat ? columns : rows);
      ASSERT_EQ(kept.top, (rows - kept.height) / 2);
      ASSERT_EQ(kept.left, (columns - kept.width) / 2);
      if (other.width != kept.width || other.height != kept.height) ++truncated;
    }
  }
  EXPECT_EQ(truncated, 36);
}

TEST(tiles, the_layouts_round_apart) {
  const TileGrid grid =
      picture_grid(published(Layout::kHuggingFace), AspectRatio::kAnyres, 656, 205);
  EXPECT_EQ(kept_patches(published(Layout::kHuggingFace), grid).width, 16);
  EXPECT_EQ(kept_patches(published(Layout::kOriginal), grid).width, 14);
}

TEST(tiles, merges_count_what_they_put_together) {
  const ModelConfig flat = published(Layout::kOriginal, PatchMerge::kFlat);
  EXPECT_EQ(tokens(flat, 640, 480), 5 * 576);
  EXPECT_EQ(tokens(published(Layout::kOriginal, PatchMerge::kSpatial), 1000, 300), 4 * 576);
  const auto whole = [](const ModelConfig& model) {
    return picture_tokens(model, picture_grid(model, AspectRatio::kCrop, 480, 640));
  };
  EXPECT_EQ(whole(flat), 576);
  EXPECT_EQ(whole(published(Layout::kOriginal)), 576);  // it never comes to the newline
  EXPECT_EQ(whole(published(Layout::kHuggingFace)), 577);
}

TEST(tiles, the_user_overrules_the_checkpoint) {
  const ModelConfig next = published(Layout::kHuggingFace);
  EXPECT_EQ(*picture_aspect_ratio(next, AspectRatio::kAuto), AspectRatio::kAnyres);
  EXPECT_EQ(*picture_aspect_ratio(next, AspectRatio::kPad), AspectRatio::kPad);
  const ModelConfig plain;
  EXPECT_EQ(*picture_aspect_ratio(plain, AspectRatio::kAuto), AspectRatio::kAuto);
  const auto refused = picture_aspect_ratio(plain, AspectRatio::kAnyres);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUnsupported);
}

TEST(tiles, come_after_the_whole_row_by_row_on_black) {
  const Frame frame = numbered_frame(8, 7);
  const PixelTensor pixels = tiles_of(frame, small_model(4, {{8, 8}}), bytes_of(4));
  ASSERT_EQ(pixels.images, 5);
  ASSERT_EQ(pixels.pictures.size(), 1u);
  EXPECT_EQ(pixels.pictures[0].rows, 2);
  EXPECT_EQ(pixels.pictures[0].columns, 2);
  for (int64_t y = 0; y < 8; ++y) {
    for (int64_t x = 0; x < 8; ++x) {
      const int64_t tile = 1 + y / 4 * 2 + x / 4;
      const float expected = y < 7 ? frame.rgb[static_cast<size_t>((y * 8 + x) * 3 + 1)] : 0;
      ASSERT_EQ(at(pixels, tile, 1, y % 4, x % 4), expected) << x << ", " << y;
    }
  }
}

TEST(tiles, the_whole_picture_ignores_its_shape) {
  const Frame frame = numbered_frame(40, 10);
  const PixelTensor pixels = tiles_of(frame, small_model(10, {{10, 40}}), bytes_of(10));
  const Bitmap squeezed =
      resample(BitmapView(40, 10, frame.rgb.data()), 10, 10, Resample::kBicubic, {0, 0, 10, 10});
  for (int64_t y = 0; y < 10; ++y) {
    for (int64_t x = 0; x < 10; ++x) {
      ASSERT_EQ(at(pixels, 0, 2, y, x), squeezed.rgb[static_cast<size_t>((y * 10 + x) * 3 + 2)]);
    }
  }
}

TEST(tiles, the_original_project_fits_bicubically_whatever_the_configuration_says) {
  const Frame frame = numbered_frame(23, 31);
  PreprocessorConfig config = bytes_of(6);
  config.resample = static_cast<int>(Resample::kBox);
  ModelConfig model = small_model(6, {{12, 12}});
  const std::vector<float> box = tiles_of(frame, model, config).values;
  model.layout = Layout::kOriginal;
  const std::vector<float> original = tiles_of(frame, model, config).values;
  config.resample = static_cast<int>(Resample::kBicubic);
  EXPECT_NE(box, original);
  EXPECT_EQ(tiles_of(frame, model, config).values, original);
}

TEST(tiles, frames_that_cannot_be_resized_are_refused) {
  const ModelConfig model = published(Layout::kHuggingFace);
  const PreprocessorConfig config = bytes_of(336);
  const auto kind = [&](const Frame& frame) {
    const auto pixels = preprocess_picture(frame, model, config, AspectRatio::kAnyres);
    return pixels ? ErrorKind::kInternal : pixels.error().kind;
  };
  EXPECT_EQ(kind({2, 2, std::vector<uint8_t>(11)}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind(numbered_frame(1, 1'000'000)), ErrorKind::kInvalidArgument);
  EXPECT_EQ(tiles_of(numbered_frame(1, 1000), model, config).images, 4);
}

}  // namespace
}  // namespace vlm
