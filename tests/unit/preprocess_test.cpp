// SPDX-License-Identifier: LGPL-2.1-or-later
#include "preprocess/image.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

namespace vlm {
namespace {

Frame plain_frame(int width, int height, std::array<uint8_t, 3> colour) {
  const auto pixels = static_cast<size_t>(width) * static_cast<size_t>(height);
  Frame frame{width, height, std::vector<uint8_t>(pixels * 3)};
  for (size_t i = 0; i < frame.rgb.size(); ++i) frame.rgb[i] = colour[i % 3];
  return frame;
}

Frame noisy_frame(int width, int height) {
  Frame frame = plain_frame(width, height, {0, 0, 0});
  uint32_t state = 1;
  for (uint8_t& byte : frame.rgb)
    byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  return frame;
}

/// Bytes pass through as they are.
PreprocessorConfig bare() {
  PreprocessorConfig config;
  config.do_resize = config.do_center_crop = config.do_rescale = config.do_normalize = false;
  return config;
}

PixelTensor processed(const Frame& frame, const PreprocessorConfig& config,
                      AspectRatio aspect = AspectRatio::kAuto) {
  auto pixels = preprocess_image(frame, config, aspect);
  EXPECT_TRUE(pixels) << (pixels ? "" : pixels.error().message);
  return pixels ? std::move(*pixels) : PixelTensor{};
}

float at(const PixelTensor& pixels, int64_t channel, int64_t y, int64_t x) {
  return pixels.values[static_cast<size_t>((channel * pixels.height + y) * pixels.width + x)];
}

TEST(preprocess, channels_come_apart) {
  const PixelTensor pixels = processed(plain_frame(3, 2, {10, 20, 30}), bare());
  EXPECT_EQ(pixels.height, 2);
  EXPECT_EQ(pixels.width, 3);
  EXPECT_EQ(at(pixels, 0, 1, 2), 10);
  EXPECT_EQ(at(pixels, 1, 0, 0), 20);
  EXPECT_EQ(at(pixels, 2, 1, 1), 30);
}

TEST(preprocess, the_long_side_is_truncated) {
  PreprocessorConfig config = bare();
  config.do_resize = true;
  config.shortest_edge = 336;
  const PixelTensor pixels = processed(plain_frame(640, 427, {1, 2, 3}), config);
  EXPECT_EQ(pixels.height, 336);
  EXPECT_EQ(pixels.width, 503);
  EXPECT_EQ(at(pixels, 0, 100, 100), 1);
}

TEST(preprocess, an_exact_size_ignores_the_aspect) {
  PreprocessorConfig config = bare();
  config.do_resize = true;
  config.shortest_edge.reset();
  config.resize_height = 5;
  config.resize_width = 9;
  const PixelTensor pixels = processed(noisy_frame(3, 40), config);
  EXPECT_EQ(pixels.height, 5);
  EXPECT_EQ(pixels.width, 9);
  EXPECT_EQ(output_size(config), (std::pair<int64_t, int64_t>{5, 9}));
}

TEST(preprocess, a_small_picture_is_cropped_with_black_around) {
  PreprocessorConfig config = bare();
  config.do_center_crop = true;
  config.crop_height = config.crop_width = 4;
  const PixelTensor pixels = processed(plain_frame(1, 3, {7, 7, 7}), config);
  for (int64_t y = 0; y < 4; ++y) {
    for (int64_t x = 0; x < 4; ++x) {
      EXPECT_EQ(at(pixels, 0, y, x), y >= 1 && x == 2 ? 7 : 0) << y << " " << x;
    }
  }
}

TEST(preprocess, padding_is_the_mean_colour_in_the_middle) {
  PreprocessorConfig config = bare();
  for (const AspectRatio aspect : {AspectRatio::kPad, AspectRatio::kAuto}) {
    config.do_pad = aspect == AspectRatio::kAuto;
    const PixelTensor pixels = processed(plain_frame(2, 5, {1, 1, 1}), config, aspect);
    ASSERT_EQ(pixels.width, 5);
    EXPECT_EQ(at(pixels, 0, 0, 0), 122);
    EXPECT_EQ(at(pixels, 1, 0, 0), 116);
    EXPECT_EQ(at(pixels, 2, 4, 4), 104);
    EXPECT_EQ(at(pixels, 0, 2, 1), 1);
    EXPECT_EQ(at(pixels, 0, 2, 2), 1);
    EXPECT_EQ(at(pixels, 0, 2, 3), 122);
  }
  EXPECT_EQ(processed(plain_frame(2, 5, {1, 1, 1}), config, AspectRatio::kCrop).width, 2);
}

TEST(preprocess, rescaling_rounds_once_and_normalising_is_float32) {
  PreprocessorConfig config = bare();
  config.do_rescale = config.do_normalize = true;
  const PixelTensor pixels = processed(plain_frame(1, 1, {200, 0, 255}), config);
  for (size_t channel = 0; channel < 3; ++channel) {
    const uint8_t byte = std::array<uint8_t, 3>{200, 0, 255}[channel];
    const auto value = static_cast<float>(byte * (1.0 / 255.0));
    EXPECT_EQ(pixels.values[channel], (value - static_cast<float>(config.mean[channel])) /
                                          static_cast<float>(config.std[channel]));
  }
}

TEST(preprocess, an_even_colour_stays_even_under_every_filter) {
  PreprocessorConfig config = bare();
  config.do_resize = true;
  for (int filter = 0; filter <= 5; ++filter) {
    config.resample = filter;
    for (const int64_t side : {1, 3, 20, 61}) {
      config.shortest_edge = side;
      const PixelTensor pixels = processed(plain_frame(20, 31, {9, 130, 255}), config);
      for (size_t i = 0; i < pixels.values.size(); ++i) {
        const size_t channel = i / static_cast<size_t>(pixels.height * pixels.width);
        ASSERT_EQ(pixels.values[i], (std::array<float, 3>{9, 130, 255}[channel])) << filter;
      }
    }
  }
}

TEST(preprocess, cropping_first_changes_no_pixel) {
  PreprocessorConfig whole = bare();
  whole.do_resize = true;
  whole.shortest_edge = 24;
  PreprocessorConfig cut = whole;
  cut.do_center_crop = true;
  cut.crop_height = 10;
  cut.crop_width = 14;
  const Frame frame = noisy_frame(70, 50);
  const PixelTensor all = processed(frame, whole), part = processed(frame, cut);
  const int64_t top = (all.height - 10) / 2, left = (all.width - 14) / 2;
  for (int64_t y = 0; y < 10; ++y) {
    for (int64_t x = 0; x < 14; ++x) {
      ASSERT_EQ(at(part, 1, y, x), at(all, 1, top + y, left + x));
    }
  }
}

TEST(preprocess, wrong_frames_are_refused) {
  const PreprocessorConfig config;
  const auto kind = [&](const Frame& frame) {
    const auto pixels = preprocess_image(frame, config, AspectRatio::kAuto);
    return pixels ? ErrorKind::kInternal : pixels.error().kind;
  };
  EXPECT_EQ(kind({0, 5, {}}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind({5, -1, {}}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind({2, 2, std::vector<uint8_t>(11)}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind({INT32_MAX, INT32_MAX, std::vector<uint8_t>(3)}), ErrorKind::kInvalidArgument);
}

TEST(preprocess, an_extreme_shape_costs_only_what_is_kept) {
  PreprocessorConfig config;
  config.shortest_edge = config.crop_height = config.crop_width = 336;
  EXPECT_EQ(processed(noisy_frame(100'000, 1), config).width, 336);
  EXPECT_EQ(processed(noisy_frame(1, 100'000), config).height, 336);
}

TEST(preprocess, threads_do_not_disturb_each_other) {
  PreprocessorConfig config;
  const Frame frame = noisy_frame(300, 200);
  const PixelTensor expected = processed(frame, config);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 5; ++round) {
        EXPECT_EQ(processed(frame, config).values, expected.values);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace vlm
