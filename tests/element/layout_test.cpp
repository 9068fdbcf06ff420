// SPDX-License-Identifier: LGPL-2.1-or-later
// What a GPU is told of a frame and makes of it, byte for byte what the converter makes of it on a
// CPU.
#include "gstvlmlayout.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "cuda/picture_index.h"
#include "frame_case.h"
#include "gstvlmframe.h"

namespace gstvlm {
namespace {

using test::look_of;

constexpr const char* kRgbFormats[] = {"RGB",  "BGR",  "RGBx", "BGRx", "xRGB",
                                       "xBGR", "RGBA", "BGRA", "ARGB", "ABGR"};

BufferPtr noise(const Look& look) {
  static std::mt19937 random(5);
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
  for (gsize i = 0; i < map.size; ++i) {
    map.data[i] = static_cast<guint8>(random());
  }
  gst_buffer_unmap(buffer.get(), &map);
  return buffer;
}

/// What the GPU's functions make of it, on the CPU; empty where it is left to the converter.
std::vector<uint8_t> by_layout(const Look& look, GstBuffer* buffer) {
  GstVideoFrame frame;
  EXPECT_TRUE(gst_video_frame_map(&frame, &look.info, buffer, GST_MAP_READ));
  std::vector<uint8_t> rgb;
  if (const auto layout = plain_layout(frame, look.orientation)) {
    const vlm::GpuPicture picture{0, *layout, nullptr};
    for (int y = 0; y < picture.upright_height(); ++y) {
      for (int x = 0; x < picture.upright_width(); ++x) {
        const vlm::Rgb pixel = vlm::upright_pixel(*layout, x, y);
        rgb.insert(rgb.end(), {pixel.red, pixel.green, pixel.blue});
      }
    }
  }
  gst_video_frame_unmap(&frame);
  return rgb;
}

void expect_equal(const Look& look, const std::string& what) {
  const BufferPtr buffer = noise(look);
  const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
  ASSERT_TRUE(frame.ok()) << what;
  const std::vector<uint8_t> got = by_layout(look, buffer.get());
  ASSERT_EQ(got.size(), frame->rgb.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], frame->rgb[i])
        << what << " at " << i / 3 % static_cast<size_t>(frame->width) << ", "
        << i / 3 / static_cast<size_t>(frame->width) << " channel " << i % 3;
  }
}

TEST(Layout, nv12_is_what_the_converter_makes_of_it) {
  for (const GstVideoChromaSite site : {GST_VIDEO_CHROMA_SITE_JPEG, GST_VIDEO_CHROMA_SITE_MPEG2}) {
    for (const char* colorimetry :
         {"bt601", "bt709", "bt2020", "smpte240m", "1:4:5:1", "1:3:5:1"}) {
      for (const auto& [width, height] : std::initializer_list<std::pair<int, int>>{{1, 1},
                                                                                    {2, 2},
                                                                                    {1, 5},
                                                                                    {5, 1},
                                                                                    {2, 7},
                                                                                    {3, 3},
                                                                                    {4, 6},
                                                                                    {7, 4},
                                                                                    {33, 18},
                                                                                    {64, 48},
                                                                                    {127, 65}}) {
        Look look = look_of("NV12", width, height, std::string(",colorimetry=") + colorimetry);
        // Caps of small pictures say nothing that GStreamer 1.22 listens to.
        look.info.chroma_site = site;
        expect_equal(look, "site " + std::to_string(site) + " " + colorimetry + " " +
                               std::to_string(width) + "x" + std::to_string(height));
      }
    }
  }
}

TEST(Layout, nv12_as_decoders_say_it) {
  expect_equal(look_of("NV12", 320, 240), "standard definition");
  expect_equal(look_of("NV12", 1280, 720), "high definition");
}

TEST(Layout, rgb_is_what_the_converter_makes_of_it) {
  for (const char* format : kRgbFormats) {
    for (const auto& [width, height] :
         std::initializer_list<std::pair<int, int>>{{1, 1}, {5, 3}, {64, 2}, {33, 17}}) {
      expect_equal(look_of(format, width, height), format);
    }
  }
}

TEST(Layout, every_turn_is_followed) {
  for (int method = GST_VIDEO_ORIENTATION_IDENTITY; method <= GST_VIDEO_ORIENTATION_UR_LL;
       ++method) {
    for (const char* format : {"NV12", "RGBx"}) {
      Look look = look_of(format, 13, 6);
      look.orientation = static_cast<GstVideoOrientationMethod>(method);
      expect_equal(look, std::string(format) + " turned by method " + std::to_string(method));
    }
  }
}

TEST(Layout, what_is_not_plain_is_left_to_the_converter) {
  std::vector<Look> looks = {look_of("I420", 16, 8),
                             look_of("P010_10LE", 16, 8),
                             look_of("RGB16", 16, 8),
                             look_of("GRAY8", 16, 8),
                             look_of("RGBP", 16, 8),
                             look_of("RGB10A2_LE", 16, 8),
                             look_of("NV12", 16, 8, ",pixel-aspect-ratio=4/3"),
                             look_of("NV12", 16, 8, ",interlace-mode=interleaved"),
                             look_of("NV12", 16, 8, ",interlace-mode=mixed"),
                             look_of("RGB", 16, 8, ",colorimetry=2:1:7:1")};
  for (const GstVideoChromaSite site :
       {GST_VIDEO_CHROMA_SITE_COSITED, GST_VIDEO_CHROMA_SITE_DV, GST_VIDEO_CHROMA_SITE_ALT_LINE}) {
    looks.push_back(look_of("NV12", 16, 8));
    looks.back().info.chroma_site = site;
  }
  for (size_t i = 0; i < looks.size(); ++i) {
    EXPECT_TRUE(by_layout(looks[i], noise(looks[i]).get()).empty()) << i;
  }
}

}  // namespace
}  // namespace gstvlm
