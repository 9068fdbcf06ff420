// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmframe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string>

GST_DEBUG_CATEGORY(gst_vlm_debug);

namespace gstvlm {
namespace {

Look look_of(const std::string& caps_text) {
  gst_init(nullptr, nullptr);
  GstCaps* caps = gst_caps_from_string(caps_text.c_str());
  Look look{};
  EXPECT_TRUE(gst_video_info_from_caps(&look.info, caps)) << caps_text;
  look.orientation = GST_VIDEO_ORIENTATION_IDENTITY;
  gst_caps_unref(caps);
  return look;
}

/// An I420 picture of one colour.
BufferPtr i420(const Look& look, const std::array<int, 3>& yuv) {
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  GstVideoFrame frame;
  EXPECT_TRUE(gst_video_frame_map(&frame, &look.info, buffer.get(), GST_MAP_WRITE));
  for (guint c = 0; c < 3; ++c) {
    for (int y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, c); ++y) {
      auto* line = static_cast<uint8_t*>(GST_VIDEO_FRAME_COMP_DATA(&frame, c)) +
                   y * GST_VIDEO_FRAME_COMP_STRIDE(&frame, c);
      std::fill_n(line, GST_VIDEO_FRAME_COMP_WIDTH(&frame, c), static_cast<uint8_t>(yuv[c]));
    }
  }
  gst_video_frame_unmap(&frame);
  return buffer;
}

struct Coding {
  const char* colorimetry;
  double kr, kb;
  bool full;
};

// The standards' arithmetic, in floating point: an independent reference.
std::array<double, 3> reference_rgb(const Coding& coding, const std::array<int, 3>& yuv) {
  const double y = coding.full ? yuv[0] / 255.0 : (yuv[0] - 16) / 219.0;
  const double cb = (yuv[1] - 128) / (coding.full ? 255.0 : 224.0);
  const double cr = (yuv[2] - 128) / (coding.full ? 255.0 : 224.0);
  const double kg = 1 - coding.kr - coding.kb;
  const double r = y + 2 * (1 - coding.kr) * cr;
  const double b = y + 2 * (1 - coding.kb) * cb;
  const double g = (y - coding.kr * r - coding.kb * b) / kg;
  const auto byte = [](double v) { return std::clamp(v * 255, 0.0, 255.0); };
  return {byte(r), byte(g), byte(b)};
}

class Colour : public ::testing::TestWithParam<Coding> {};

TEST_P(Colour, follows_matrix_and_range) {
  const Coding& coding = GetParam();
  const Look look = look_of("video/x-raw,format=I420,width=32,height=16,framerate=1/1,colorimetry=" +
                            std::string(coding.colorimetry));
  FrameConverter converter(look);
  double worst = 0;
  for (const std::array<int, 3>& yuv : std::initializer_list<std::array<int, 3>>{
           {16, 128, 128}, {235, 128, 128}, {126, 128, 128}, {81, 90, 240}, {145, 54, 34},
           {41, 240, 110}, {170, 166, 16}, {106, 202, 222}, {60, 120, 140}, {200, 110, 150}}) {
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

std::ostream& operator<<(std::ostream& out, const Coding& coding) {
  return out << coding.colorimetry;
}

INSTANTIATE_TEST_SUITE_P(
    Standards, Colour,
    ::testing::Values(Coding{"bt601", 0.299, 0.114, false}, Coding{"bt709", 0.2126, 0.0722, false},
                      Coding{"bt2020", 0.2627, 0.0593, false},
                      Coding{"1:4:5:1", 0.299, 0.114, true}, Coding{"1:3:5:1", 0.2126, 0.0722, true}));

}  // namespace
}  // namespace gstvlm
