// SPDX-License-Identifier: LGPL-2.1-or-later
// The ways round GStreamer's converter make the bytes that the way through it does.
#include "gstvlmcolour.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "frame_case.h"
#include "gstvlmframe.h"
#include "gstvlmlayout.h"

namespace gstvlm {
namespace {

using test::look_of;

constexpr const char* kMatrices[] = {"bt601", "bt709", "bt2020", "smpte240m", "1:4:5:1", "1:3:5:1"};

/// A buffer of noise, its planes where no caps would have them.
BufferPtr noise(const Look& look) {
  static std::mt19937 random(7);
  const GstVideoInfo& info = look.info;
  gsize offset[GST_VIDEO_MAX_PLANES] = {};
  gint stride[GST_VIDEO_MAX_PLANES] = {};
  gsize size = 5;
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(&info); ++plane) {
    offset[plane] = size;
    stride[plane] = GST_VIDEO_INFO_PLANE_STRIDE(&info, plane) + 7;
    size += static_cast<gsize>(stride[plane] * GST_VIDEO_INFO_HEIGHT(&info)) + 3;
  }
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, size, nullptr));
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
  std::generate_n(map.data, map.size, [] { return static_cast<guint8>(random()); });
  gst_buffer_unmap(buffer.get(), &map);
  gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE,
                                 GST_VIDEO_INFO_FORMAT(&info),
                                 static_cast<guint>(GST_VIDEO_INFO_WIDTH(&info)),
                                 static_cast<guint>(GST_VIDEO_INFO_HEIGHT(&info)),
                                 GST_VIDEO_INFO_N_PLANES(&info), offset, stride);
  return buffer;
}

uint8_t byte_of(float value) {
  return static_cast<uint8_t>(std::clamp(static_cast<int>(value + 0.5F), 0, 255));
}

/// Unpacked by GStreamer, then the matrix pixel by pixel.
template <typename Sample>
std::vector<uint8_t> reference(const Look& look, GstBuffer* buffer) {
  GstVideoInfo packed;
  gst_video_info_set_format(&packed,
                            sizeof(Sample) == 1 ? GST_VIDEO_FORMAT_AYUV : GST_VIDEO_FORMAT_AYUV64,
                            static_cast<guint>(GST_VIDEO_INFO_WIDTH(&look.info)),
                            static_cast<guint>(GST_VIDEO_INFO_HEIGHT(&look.info)));
  packed.colorimetry = look.info.colorimetry;
  packed.fps_n = look.info.fps_n;
  packed.fps_d = look.info.fps_d;
  const BufferPtr target(gst_buffer_new_allocate(nullptr, packed.size, nullptr));
  GstVideoFrame from;
  GstVideoFrame to;
  EXPECT_TRUE(gst_video_frame_map(&from, &look.info, buffer, GST_MAP_READ));
  EXPECT_TRUE(gst_video_frame_map(&to, &packed, target.get(), GST_MAP_WRITE));
  GstVideoConverter* converter = gst_video_converter_new(
      &look.info, &packed,
      gst_structure_new("config", GST_VIDEO_CONVERTER_OPT_DITHER_METHOD,
                        GST_TYPE_VIDEO_DITHER_METHOD, GST_VIDEO_DITHER_NONE, nullptr));
  gst_video_converter_frame(converter, &from, &to);
  gst_video_converter_free(converter);
  const vlm::YuvMatrix matrix = matrix_of(packed);
  const auto* pixel = static_cast<const Sample*>(GST_VIDEO_FRAME_PLANE_DATA(&to, 0));
  std::vector<uint8_t> rgb;
  for (gsize at = 0; at < packed.size; at += 4 * sizeof(Sample), pixel += 4) {
    const float y = static_cast<float>(pixel[1] - matrix.offset[0]) * matrix.luma;
    const auto cb = static_cast<float>(pixel[2] - matrix.offset[1]);
    const auto cr = static_cast<float>(pixel[3] - matrix.offset[2]);
    const float without_blue = y - matrix.green_b * cb;
    rgb.insert(rgb.end(),
               {byte_of(y + matrix.red * cr), byte_of(without_blue - matrix.green_r * cr),
                byte_of(y + matrix.blue * cb)});
  }
  gst_video_frame_unmap(&from);
  gst_video_frame_unmap(&to);
  return rgb;
}

void expect_reference(const std::string& format, int width, int height, const char* matrix,
                      GstVideoChromaSite site = GST_VIDEO_CHROMA_SITE_UNKNOWN) {
  Look look = look_of(format, width, height, std::string(",colorimetry=") + matrix);
  if (site != GST_VIDEO_CHROMA_SITE_UNKNOWN) {
    look.info.chroma_site = site;
  }
  const BufferPtr buffer = noise(look);
  const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
  ASSERT_TRUE(frame.ok());
  const std::vector<uint8_t> wanted = GST_VIDEO_INFO_COMP_DEPTH(&look.info, 0) > 8
                                          ? reference<uint16_t>(look, buffer.get())
                                          : reference<uint8_t>(look, buffer.get());
  ASSERT_EQ(frame->rgb.size(), wanted.size());
  const auto differs = std::mismatch(wanted.begin(), wanted.end(), frame->rgb.begin());
  EXPECT_TRUE(differs.first == wanted.end())
      << format << " " << width << "x" << height << " " << matrix << " site " << site << " byte "
      << differs.first - wanted.begin();
}

TEST(Colour, planes_become_what_the_converter_makes_of_them) {
  for (const char* format : {"I420", "YV12", "NV12"}) {
    for (const char* matrix : kMatrices) {
      for (int width = 1; width <= 9; ++width) {
        for (int height = 1; height <= 9; ++height) {
          expect_reference(format, width, height, matrix);
        }
      }
      for (const auto& [width, height] :
           {std::pair{127, 5}, {128, 6}, {129, 7}, {257, 3}, {384, 34}}) {
        expect_reference(format, width, height, matrix);
      }
    }
  }
}

TEST(Colour, planes_may_have_their_colours_anywhere) {
  for (const char* format : {"I420", "YV12", "NV12"}) {
    for (const GstVideoChromaSite site :
         {GST_VIDEO_CHROMA_SITE_JPEG, GST_VIDEO_CHROMA_SITE_MPEG2, GST_VIDEO_CHROMA_SITE_COSITED,
          GST_VIDEO_CHROMA_SITE_DV, GST_VIDEO_CHROMA_SITE_ALT_LINE}) {
      for (const auto& [width, height] : {std::pair{1, 1}, {5, 3}, {130, 6}, {131, 7}}) {
        expect_reference(format, width, height, "bt709", site);
      }
    }
  }
}

TEST(Colour, other_layouts_are_left_to_the_converter) {
  for (const char* format : {"I420_10LE", "YUY2", "NV21", "Y444", "v210"}) {
    for (const char* matrix : kMatrices) {
      expect_reference(format, 131, 6, matrix);
    }
  }
}

// Whose lines are half as many, or share colours otherwise.
TEST(Colour, fields_are_left_to_the_converter) {
  for (const GstVideoInterlaceMode mode :
       {GST_VIDEO_INTERLACE_MODE_INTERLEAVED, GST_VIDEO_INTERLACE_MODE_MIXED,
        GST_VIDEO_INTERLACE_MODE_ALTERNATE}) {
    Look look = look_of("I420", 16, 8, ",colorimetry=bt709");
    const BufferPtr buffer = noise(look);
    GstVideoFrame frame;
    ASSERT_TRUE(gst_video_frame_map(&frame, &look.info, buffer.get(), GST_MAP_READ));
    EXPECT_FALSE(rgb_of_planes(frame).empty());
    frame.info.interlace_mode = mode;
    EXPECT_TRUE(rgb_of_planes(frame).empty());
    gst_video_frame_unmap(&frame);
  }
}

}  // namespace
}  // namespace gstvlm
