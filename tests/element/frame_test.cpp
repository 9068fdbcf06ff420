// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmframe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string>

#include "frame_case.h"

namespace gstvlm {
namespace {

using test::Coding;
using test::i420;
using test::look_of;
using test::reference_rgb;

class Colour : public ::testing::TestWithParam<Coding> {};

TEST_P(Colour, follows_matrix_and_range) {
  const Coding& coding = GetParam();
  const Look look =
      look_of("video/x-raw,format=I420,width=32,height=16,framerate=1/1,colorimetry=" +
              std::string(coding.colorimetry));
  FrameConverter converter(look);
  double worst = 0;
  for (const std::array<int, 3>& yuv : std::initializer_list<std::array<int, 3>>{{16, 128, 128},
                                                                                 {235, 128, 128},
                                                                                 {126, 128, 128},
                                                                                 {81, 90, 240},
                                                                                 {145, 54, 34},
                                                                                 {41, 240, 110},
                                                                                 {170, 166, 16},
                                                                                 {106, 202, 222},
                                                                                 {60, 120, 140},
                                                                                 {200, 110, 150}}) {
    const BufferPtr buffer = i420(look, yuv);
    const vlm::Result<vlm::Frame> frame = converter.convert(buffer.get());
    ASSERT_TRUE(frame.ok());
    ASSERT_EQ(frame->width, 32);
    ASSERT_EQ(frame->height, 16);
    ASSERT_EQ(frame->rgb.size(), 32u * 16 * 3);
    const std::array<double, 3> expected = reference_rgb(coding, yuv);
    for (size_t i = 0; i < frame->rgb.size(); ++i) {
      worst = std::max(worst, std::abs(frame->rgb[i] - expected[i % 3]));
    }
  }
  std::printf("%s: at most %.2f of 255 from the reference\n", coding.colorimetry, worst);
  EXPECT_LE(worst, 0.51);
}

INSTANTIATE_TEST_SUITE_P(Standards, Colour,
                         ::testing::Values(Coding{"bt601", 0.299, 0.114, false},
                                           Coding{"bt709", 0.2126, 0.0722, false},
                                           Coding{"bt2020", 0.2627, 0.0593, false},
                                           Coding{"smpte240m", 0.212, 0.087, false},
                                           Coding{"1:4:5:1", 0.299, 0.114, true},
                                           Coding{"1:3:5:1", 0.2126, 0.0722, true}));

/// A grey picture whose bytes count up, so that every pixel is known.
BufferPtr ramp(const Look& look) {
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  GstVideoFrame frame;
  EXPECT_TRUE(gst_video_frame_map(&frame, &look.info, buffer.get(), GST_MAP_WRITE));
  const int width = GST_VIDEO_FRAME_WIDTH(&frame);
  for (int y = 0; y < GST_VIDEO_FRAME_HEIGHT(&frame); ++y) {
    for (int x = 0; x < width * 3; ++x) {
      static_cast<uint8_t*>(
          GST_VIDEO_FRAME_PLANE_DATA(&frame, 0))[y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0) + x] =
          static_cast<uint8_t>(y * width * 3 + x);
    }
  }
  gst_video_frame_unmap(&frame);
  return buffer;
}

TEST(Frame, rgb_is_taken_byte_for_byte) {
  // 5 pixels: the rows of the buffer are padded, those of the frame are not.
  const Look look = look_of("video/x-raw,format=RGB,width=5,height=3,framerate=1/1");
  const BufferPtr buffer = ramp(look);
  const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
  ASSERT_TRUE(frame.ok());
  ASSERT_EQ(frame->rgb.size(), 45u);
  for (size_t i = 0; i < frame->rgb.size(); ++i) {
    EXPECT_EQ(frame->rgb[i], i);
  }
}

TEST(Frame, crop_meta_is_honoured) {
  const Look look = look_of("video/x-raw,format=RGB,width=6,height=4,framerate=1/1");
  const BufferPtr buffer = ramp(look);
  GstVideoCropMeta* crop = gst_buffer_add_video_crop_meta(buffer.get());
  crop->x = 2;
  crop->y = 1;
  crop->width = 3;
  crop->height = 100;
  FrameConverter converter(look);
  vlm::Result<vlm::Frame> frame = converter.convert(buffer.get());
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->width, 3);
  EXPECT_EQ(frame->height, 3);
  EXPECT_EQ(frame->rgb[0], 6 * 3 + 2 * 3);
  crop->width = 0;
  frame = converter.convert(buffer.get());
  EXPECT_EQ(frame->width, 6);
}

TEST(Frame, pixels_are_made_square) {
  for (const auto& [par, width] :
       {std::pair{"2/1", 32}, std::pair{"1/2", 8}, std::pair{"1/1", 16}, std::pair{"1/1000", 1}}) {
    const Look look = look_of(
        std::string("video/x-raw,format=I420,width=16,height=8,framerate=1/1,pixel-aspect-ratio=") +
        par);
    const BufferPtr buffer = i420(look, {126, 128, 128});
    const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
    ASSERT_TRUE(frame.ok());
    EXPECT_EQ(frame->width, width) << par;
    EXPECT_EQ(frame->height, 8);
  }
}

// Where every pixel has its own colour differences, every pixel is the reference's.
TEST_P(Colour, every_pixel_follows_matrix_and_range) {
  const Coding& coding = GetParam();
  const Look look =
      look_of("video/x-raw,format=Y444,width=37,height=23,framerate=1/1,colorimetry=" +
              std::string(coding.colorimetry));
  const BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  GstMapInfo map;
  ASSERT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
  unsigned state = 1;
  for (gsize i = 0; i < map.size; ++i) {
    state = state * 1664525U + 1013904223U;
    map.data[i] = static_cast<uint8_t>(state >> 24);
  }
  const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
  ASSERT_TRUE(frame.ok());
  for (size_t y = 0; y < 23; ++y) {
    for (size_t x = 0; x < 37; ++x) {
      std::array<int, 3> yuv{};
      for (guint c = 0; c < 3; ++c) {
        yuv[c] = map.data[GST_VIDEO_INFO_COMP_OFFSET(&look.info, c) +
                          y * static_cast<size_t>(GST_VIDEO_INFO_COMP_STRIDE(&look.info, c)) + x];
      }
      const std::array<double, 3> expected = reference_rgb(coding, yuv);
      for (size_t c = 0; c < 3; ++c) {
        ASSERT_NEAR(frame->rgb[(y * 37 + x) * 3 + c], expected[c], 0.51) << x << "," << y;
      }
    }
  }
  gst_buffer_unmap(buffer.get(), &map);
}

// Red, green and blue of 16 to 235 are as bright as those of 0 to 255.
TEST(Frame, range_of_rgb_is_honoured) {
  for (const char* format : {"RGB", "BGRx", "GBR", "RGBA64_LE"}) {
    const bool deep = std::string(format) == "RGBA64_LE";
    const Look look =
        look_of("video/x-raw,width=16,height=4,framerate=1/1,colorimetry=2:1:5:1,format=" +
                std::string(format));
    ASSERT_EQ(look.info.colorimetry.range, GST_VIDEO_COLOR_RANGE_16_235);
    for (const int value : {0, 16, 100, 128, 235, 255}) {
      const BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
      gst_buffer_memset(buffer.get(), 0, static_cast<guint8>(value), look.info.size);
      const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
      ASSERT_TRUE(frame.ok());
      const double sample = deep ? value * 257 / 256.0 : value;
      const double expected = std::clamp((sample - 16) * 255 / 219, 0.0, 255.0);
      for (size_t i = 0; i < frame->rgb.size(); ++i) {
        ASSERT_NEAR(frame->rgb[i], expected, 0.51) << format << " " << value;
      }
    }
  }
}

// Two pixels are written at a time, in rows that need not be a multiple of two.
TEST(Frame, pairs_of_pixels_may_have_any_width) {
  for (const char* format : {"UYVY", "YUY2", "YVYU", "VYUY"}) {
    for (const int width : {1, 2, 5, 33, 130, 131}) {
      const Look look = look_of(format, width, 31);
      const BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
      gst_buffer_memset(buffer.get(), 0, 128, look.info.size);
      const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
      ASSERT_TRUE(frame.ok());
      ASSERT_EQ(frame->rgb.size(), static_cast<size_t>(width) * 31 * 3);
      for (const uint8_t value : frame->rgb) {
        ASSERT_EQ(value, 130) << format << " " << width;  // (128 - 16) · 255 / 219
      }
    }
  }
}

TEST(Frame, small_or_empty_buffer_is_named) {
  const Look look = look_of("video/x-raw,format=RGB,width=16,height=8,framerate=1/1");
  FrameConverter converter(look);
  const BufferPtr empty(gst_buffer_new());
  const BufferPtr small(gst_buffer_new_allocate(nullptr, 100, nullptr));
  for (GstBuffer* buffer : {empty.get(), small.get()}) {
    const vlm::Result<vlm::Frame> frame = converter.convert(buffer);
    ASSERT_FALSE(frame.ok());
    EXPECT_EQ(frame.error().kind, vlm::ErrorKind::kInvalidArgument);
    EXPECT_NE(frame.error().message.find("384"), std::string::npos) << frame.error().message;
  }
}

TEST(Frame, size_of_the_picture_is_that_of_its_metadata) {
  const Look look = look_of("video/x-raw,format=RGB,width=16,height=8,framerate=1/1");
  const BufferPtr buffer(gst_buffer_new_allocate(nullptr, 16 * 3 * 10, nullptr));
  gst_buffer_memset(buffer.get(), 0, 7, 480);
  gsize offset[GST_VIDEO_MAX_PLANES] = {0};
  gint stride[GST_VIDEO_MAX_PLANES] = {60};
  gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_RGB, 16,
                                 8, 1, offset, stride);
  const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->rgb, std::vector<uint8_t>(384, 7));
}

// The end of the last plane decides, whatever the buffer's size would be without metadata.
TEST(Frame, metadata_may_not_claim_more_than_the_buffer_holds) {
  const Look look = look_of("video/x-raw,format=I420,width=16,height=8,framerate=1/1");
  constexpr gsize kNeeded = 200 + 3 * 32 + 8;
  for (const gsize size : {kNeeded, kNeeded - 1}) {
    const BufferPtr buffer(gst_buffer_new_allocate(nullptr, size, nullptr));
    gst_buffer_memset(buffer.get(), 0, 128, size);
    gsize offset[GST_VIDEO_MAX_PLANES] = {0, 128, 200};
    gint stride[GST_VIDEO_MAX_PLANES] = {16, 8, 32};
    gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_I420,
                                   16, 8, 3, offset, stride);
    EXPECT_EQ(FrameConverter(look).convert(buffer.get()).ok(), size == kNeeded);
    EXPECT_EQ(check_buffer(look, buffer.get()).ok(), size == kNeeded);
  }
}

}  // namespace
}  // namespace gstvlm
