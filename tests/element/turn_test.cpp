// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmturn.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>

namespace gstvlm {
namespace {

constexpr GstVideoOrientationMethod kMethods[] = {
    GST_VIDEO_ORIENTATION_IDENTITY, GST_VIDEO_ORIENTATION_90R,   GST_VIDEO_ORIENTATION_180,
    GST_VIDEO_ORIENTATION_90L,      GST_VIDEO_ORIENTATION_HORIZ, GST_VIDEO_ORIENTATION_VERT,
    GST_VIDEO_ORIENTATION_UL_LR,    GST_VIDEO_ORIENTATION_UR_LL};

// 2 × 3 pixels, each of three equal bytes:  0 1
//                                           2 3
//                                           4 5
TEST(Turn, orientations_are_those_of_the_tags) {
  constexpr std::array<int, 6> kExpected[] = {
      {0, 1, 2, 3, 4, 5}, {4, 2, 0, 5, 3, 1}, {5, 4, 3, 2, 1, 0}, {1, 3, 5, 0, 2, 4},
      {1, 0, 3, 2, 5, 4}, {4, 5, 2, 3, 0, 1}, {0, 2, 4, 1, 3, 5}, {5, 3, 1, 4, 2, 0}};
  for (size_t m = 0; m < std::size(kMethods); ++m) {
    vlm::Frame frame{2, 3, {}};
    for (uint8_t pixel = 0; pixel < 6; ++pixel) {
      frame.rgb.insert(frame.rgb.end(), 3, pixel);
    }
    std::vector<uint8_t> spare;
    turn(frame, kMethods[m], spare);
    EXPECT_EQ(frame.width * frame.height, 6);
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(frame.rgb[i * 3], kExpected[m][i]) << "method " << kMethods[m] << " pixel " << i;
    }
  }
}

/// A picture whose bytes do not repeat.
vlm::Frame noise(int width, int height) {
  vlm::Frame frame{width, height, {}};
  frame.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  unsigned state = 1;
  for (uint8_t& byte : frame.rgb) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<uint8_t>(state >> 24);
  }
  return frame;
}

/// Where a viewer's pixel (x, y) lies in a picture of `width` × `height`.
std::pair<int, int> source_of(GstVideoOrientationMethod method, int x, int y, int width,
                              int height) {
  const int right = width - 1;
  const int bottom = height - 1;
  switch (method) {
    case GST_VIDEO_ORIENTATION_90R:
      return {y, bottom - x};
    case GST_VIDEO_ORIENTATION_180:
      return {right - x, bottom - y};
    case GST_VIDEO_ORIENTATION_90L:
      return {right - y, x};
    case GST_VIDEO_ORIENTATION_HORIZ:
      return {right - x, y};
    case GST_VIDEO_ORIENTATION_VERT:
      return {x, bottom - y};
    case GST_VIDEO_ORIENTATION_UL_LR:
      return {y, x};
    case GST_VIDEO_ORIENTATION_UR_LL:
      return {right - y, bottom - x};
    default:
      return {x, y};
  }
}

bool swaps(GstVideoOrientationMethod method) {
  return source_of(method, 0, 1, 9, 9).second == source_of(method, 0, 0, 9, 9).second;
}

/// Pixel by pixel.
vlm::Frame plainly_turned(const vlm::Frame& frame, GstVideoOrientationMethod method) {
  vlm::Frame out{frame.width, frame.height, {}};
  if (swaps(method)) {
    std::swap(out.width, out.height);
  }
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const auto [from_x, from_y] = source_of(method, x, y, frame.width, frame.height);
      const auto at =
          frame.rgb.begin() + (static_cast<std::ptrdiff_t>(from_y) * frame.width + from_x) * 3;
      out.rgb.insert(out.rgb.end(), at, at + 3);
    }
  }
  return out;
}

// Below, at and beyond the sizes of tiles, of both kinds.
TEST(Turn, every_byte_is_that_of_a_plain_loop) {
  for (const auto& [width, height] : {std::pair{1, 1},
                                      {1, 7},
                                      {7, 1},
                                      {2, 2},
                                      {15, 63},
                                      {16, 64},
                                      {17, 65},
                                      {131, 67},
                                      {53, 201},
                                      {1024, 19},
                                      {2048, 9}}) {
    const vlm::Frame frame = noise(width, height);
    std::vector<uint8_t> spare(5);
    for (const GstVideoOrientationMethod method : kMethods) {
      const vlm::Frame expected = plainly_turned(frame, method);
      vlm::Frame turned = frame;
      turn(turned, method, spare);
      EXPECT_EQ(turned.width, expected.width);
      EXPECT_EQ(turned.height, expected.height);
      EXPECT_TRUE(turned.rgb == expected.rgb) << width << "×" << height << " method " << method;
    }
  }
}

TEST(Turn, pictures_on_a_gpu_stay_as_they_are) {
  vlm::Frame frame{4, 2, {}};
  std::vector<uint8_t> spare(8);
  turn(frame, GST_VIDEO_ORIENTATION_90R, spare);
  EXPECT_EQ(frame.width, 4);
  EXPECT_EQ(spare.size(), 8u);
}

TEST(Turn, memory_goes_to_and_fro) {
  vlm::Frame frame = noise(6, 4);
  std::vector<uint8_t> spare(frame.rgb.size());
  const uint8_t* const of_frame = frame.rgb.data();
  const uint8_t* const of_spare = spare.data();
  turn(frame, GST_VIDEO_ORIENTATION_90L, spare);
  EXPECT_EQ(frame.rgb.data(), of_spare);
  EXPECT_EQ(spare.data(), of_frame);
  turn(frame, GST_VIDEO_ORIENTATION_180, spare);
  EXPECT_EQ(frame.rgb.data(), of_spare);
}

}  // namespace
}  // namespace gstvlm
