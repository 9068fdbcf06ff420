// SPDX-License-Identifier: LGPL-2.1-or-later
// What is seen of interlaced video.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "frame_case.h"

namespace gstvlm {
namespace {

using test::Coding;
using test::look_of;
using test::reference_rgb;

// Its lines are half as many, whatever metadata say of the frame that it belongs to.
TEST(Fields, field_in_a_buffer_is_a_picture) {
  const Look look = look_of(
      "video/x-raw(format:Interlaced),format=I420,width=16,height=8,framerate=1/1,"
      "interlace-mode=alternate");
  ASSERT_EQ(GST_VIDEO_INFO_INTERLACE_MODE(&look.info), GST_VIDEO_INTERLACE_MODE_ALTERNATE);
  ASSERT_EQ(look.info.size, 16u * 4 * 3 / 2);
  const BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  gst_buffer_memset(buffer.get(), 0, 128, look.info.size);
  for (const bool with_meta : {false, true}) {
    if (with_meta) {
      gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_I420,
                                     16, 8, 3, const_cast<gsize*>(look.info.offset),
                                     const_cast<gint*>(look.info.stride));
    }
    const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
    ASSERT_TRUE(frame.ok());
    EXPECT_EQ(frame->height, 8);
    EXPECT_EQ(frame->width, 16);
    EXPECT_EQ(std::count(frame->rgb.begin(), frame->rgb.end(), frame->rgb[0]), 16 * 8 * 3);
  }
}

/// An I420 frame whose lines belong to two fields, red and blue by turns, with colour differences
/// of their own.
BufferPtr two_fields(const Look& look) {
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  gst_buffer_memset(buffer.get(), 0, 0, look.info.size);
  constexpr uint8_t kFields[2][3] = {{81, 90, 240}, {41, 240, 110}};
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
  for (guint c = 0; c < 3; ++c) {
    // Each field has its own lines of colours.
    for (int y = 0; y < GST_ROUND_UP_2(GST_VIDEO_INFO_COMP_HEIGHT(&look.info, c)); ++y) {
      std::fill_n(map.data + GST_VIDEO_INFO_COMP_OFFSET(&look.info, c) +
                      y * GST_VIDEO_INFO_COMP_STRIDE(&look.info, c),
                  GST_VIDEO_INFO_COMP_WIDTH(&look.info, c), kFields[y % 2][c]);
    }
  }
  gst_buffer_unmap(buffer.get(), &map);
  return buffer;
}

// Of an interlaced frame the field that comes first is seen, without the other's colours.
TEST(Fields, first_field_of_a_frame_is_the_picture) {
  const Coding coding{"bt601", 0.299, 0.114, false};
  const struct {
    const char* mode;
    guint flags;
    bool top;
  } kinds[] = {
      {"interleaved", 0, false},
      {"interleaved", GST_VIDEO_BUFFER_FLAG_TFF, true},
      {"interleaved,field-order=top-field-first", 0, true},
      {"interleaved,field-order=bottom-field-first", 0, false},
      {"interleaved", GST_VIDEO_BUFFER_FLAG_ONEFIELD, false},
      {"interleaved", GST_VIDEO_BUFFER_FLAG_ONEFIELD | GST_VIDEO_BUFFER_FLAG_TFF, true},
      {"mixed", GST_VIDEO_BUFFER_FLAG_INTERLACED, false},
      {"mixed", GST_VIDEO_BUFFER_FLAG_INTERLACED | GST_VIDEO_BUFFER_FLAG_TFF, true},
  };
  for (const auto& [mode, flags, top] : kinds) {
    for (const int height : {16, 18, 15, 13, 3, 2, 1}) {
      const Look look =
          look_of("video/x-raw,format=I420,width=16,framerate=25/1,colorimetry=bt601,height=" +
                  std::to_string(height) + ",interlace-mode=" + mode);
      const BufferPtr buffer = two_fields(look);
      GST_BUFFER_FLAG_SET(buffer.get(), flags);
      const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
      ASSERT_TRUE(frame.ok());
      ASSERT_EQ(frame->width, 16);
      ASSERT_EQ(frame->height, height);
      const std::array<double, 3> expected =
          reference_rgb(coding, top || height == 1 ? std::array<int, 3>{81, 90, 240}
                                                   : std::array<int, 3>{41, 240, 110});
      for (size_t i = 0; i < frame->rgb.size(); ++i) {
        // GStreamer scales odd heights less exactly.
        ASSERT_NEAR(frame->rgb[i], expected[i % 3], height % 2 == 0 ? 0.51 : 5)
            << mode << " flags " << flags << " height " << height << " byte " << i;
      }
    }
  }
}

/// An interlaced frame of a white edge that has moved between the fields: on lines of the top one
/// it is at `top`, on those of the bottom one at `bottom`.
BufferPtr moving_edge(const Look& look, int top, int bottom) {
  const int width = GST_VIDEO_INFO_WIDTH(&look.info);
  const int height = GST_VIDEO_INFO_HEIGHT(&look.info);
  GstVideoInfo grey;
  gst_video_info_set_interlaced_format(&grey, GST_VIDEO_FORMAT_GRAY8,
                                       GST_VIDEO_INTERLACE_MODE_INTERLEAVED,
                                       static_cast<guint>(width), static_cast<guint>(height));
  grey.fps_n = GST_VIDEO_INFO_FPS_N(&look.info);
  const BufferPtr drawn(gst_buffer_new_allocate(nullptr, grey.size, nullptr));
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(drawn.get(), &map, GST_MAP_WRITE));
  for (int y = 0; y < height; ++y) {
    guint8* line = map.data + y * GST_VIDEO_INFO_PLANE_STRIDE(&grey, 0);
    std::fill_n(line, width, guint8{0});
    std::fill_n(line, y % 2 == 0 ? top : bottom, guint8{255});
  }
  gst_buffer_unmap(drawn.get(), &map);
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, look.info.size, nullptr));
  GstVideoFrame from;
  GstVideoFrame to;
  EXPECT_TRUE(gst_video_frame_map(&from, &grey, drawn.get(), GST_MAP_READ));
  EXPECT_TRUE(gst_video_frame_map(&to, &look.info, buffer.get(), GST_MAP_WRITE));
  GstVideoConverter* converter = gst_video_converter_new(&grey, &look.info, nullptr);
  gst_video_converter_frame(converter, &from, &to);
  gst_video_converter_free(converter);
  gst_video_frame_unmap(&from);
  gst_video_frame_unmap(&to);
  return buffer;
}

// In every layout of planes and lines: no line differs from the next, and the edge is where it was
// when the frame began.
TEST(Fields, what_moves_has_no_comb) {
  for (const char* format : {"I420", "NV12", "I420_10LE", "Y42B", "Y444", "YUY2", "v210", "UYVP",
                             "BGRx", "RGB16", "GRAY8", "NV12_10LE32"}) {
    for (const bool top_first : {true, false}) {
      Look look =
          look_of("video/x-raw,width=48,height=22,framerate=25/1,format=" + std::string(format) +
                  ",interlace-mode=interleaved");
      const BufferPtr buffer = moving_edge(look, 12, 36);
      if (top_first) {
        GST_BUFFER_FLAG_SET(buffer.get(), GST_VIDEO_BUFFER_FLAG_TFF);
      }
      GstVideoCropMeta* crop = gst_buffer_add_video_crop_meta(buffer.get());
      for (const guint y : {0U, 1U, 5U}) {
        crop->y = y;
        crop->width = 48;
        crop->height = 22 - 2 * y;
        const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
        ASSERT_TRUE(frame.ok());
        ASSERT_EQ(frame->height, static_cast<int>(crop->height));
        const size_t line = 48 * 3;
        for (size_t i = 0; i < frame->rgb.size(); ++i) {
          ASSERT_EQ(frame->rgb[i], frame->rgb[i % line]) << format << " " << top_first << " " << i;
        }
        const size_t edge = top_first ? 12 : 36;
        EXPECT_GT(frame->rgb[(edge - 3) * 3], 200) << format;
        EXPECT_LT(frame->rgb[(edge + 3) * 3], 50) << format;
      }
    }
  }
}

/// An I420 frame of 16 × 10 pixels in a layout of its own, with so many lines of each colour
/// difference and `less` bytes too few. Its fields are two_fields()'s.
BufferPtr own_layout(const Look& look, gsize colour_lines, gsize less) {
  gsize offset[GST_VIDEO_MAX_PLANES] = {0, 160, 160 + 8 * colour_lines};
  gint stride[GST_VIDEO_MAX_PLANES] = {16, 8, 8};
  const gsize size = 160 + 2 * 8 * colour_lines;
  const BufferPtr usual = two_fields(look);
  BufferPtr buffer(gst_buffer_new_allocate(nullptr, size, nullptr));
  GstMapInfo map;
  EXPECT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
  gst_buffer_extract(usual.get(), 0, map.data, 160);
  for (guint plane = 1; plane < 3; ++plane) {
    gst_buffer_extract(usual.get(), GST_VIDEO_INFO_PLANE_OFFSET(&look.info, plane),
                       map.data + offset[plane], 8 * colour_lines);
  }
  gst_buffer_unmap(buffer.get(), &map);
  gst_buffer_resize(buffer.get(), 0, static_cast<gssize>(size - less));
  gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_I420, 16,
                                 10, 3, offset, stride);
  return buffer;
}

// A decoder's own layout may leave the second field's last line of colours out: of ten lines each
// field has five, and three of colours, but the frame has five of colours. The first field is whole
// then, and is the picture.
TEST(Fields, field_without_its_last_line_of_colours_is_not_the_picture) {
  const Look look = look_of(
      "video/x-raw,format=I420,width=16,height=10,framerate=1/1,interlace-mode=interleaved,"
      "colorimetry=bt601");
  ASSERT_EQ(GST_VIDEO_INFO_PLANE_STRIDE(&look.info, 1), 8);
  const struct {
    gsize colour_lines;
    gsize less;
    guint flags;
    int seen;  // red: the first field, blue: the second, 0: an error
  } cases[] = {{6, 0, 0, 'b'},
               {6, 0, GST_VIDEO_BUFFER_FLAG_TFF, 'r'},
               {6, 1, 0, 'r'},
               {5, 0, 0, 'r'},
               {5, 0, GST_VIDEO_BUFFER_FLAG_TFF, 'r'},
               {5, 1, 0, 0},
               {6, 0, GST_VIDEO_BUFFER_FLAG_ONEFIELD, 'b'},
               {5, 0, GST_VIDEO_BUFFER_FLAG_ONEFIELD, 0},
               {5, 0, GST_VIDEO_BUFFER_FLAG_ONEFIELD | GST_VIDEO_BUFFER_FLAG_TFF, 'r'}};
  for (const auto& [colour_lines, less, flags, seen] : cases) {
    const BufferPtr buffer = own_layout(look, colour_lines, less);
    GST_BUFFER_FLAG_SET(buffer.get(), flags);
    const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
    ASSERT_EQ(frame.ok(), seen != 0) << colour_lines << " less " << less << " flags " << flags;
    for (size_t i = 0; frame.ok() && i < frame->rgb.size(); i += 3) {
      const int colour = frame->rgb[i] > 200 && frame->rgb[i + 2] < 50 ? 'r' : 'b';
      ASSERT_EQ(colour, seen) << colour_lines << " flags " << flags << " byte " << i;
    }
  }
}

// Without the flag a buffer of mixed video is progressive: lines share colours in pairs.
TEST(Fields, progressive_frame_of_mixed_video_is_not_woven) {
  const Look mixed =
      look_of("video/x-raw,format=I420,width=16,height=16,framerate=25/1,interlace-mode=mixed");
  const Look progressive = look_of("video/x-raw,format=I420,width=16,height=16,framerate=25/1");
  const BufferPtr buffer = two_fields(mixed);
  const vlm::Result<vlm::Frame> one = FrameConverter(mixed).convert(buffer.get());
  const vlm::Result<vlm::Frame> other = FrameConverter(progressive).convert(buffer.get());
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_EQ(one->rgb, other->rgb);
}

// Planes may lie beside each other, a line of one behind a line of the other.
TEST(Fields, whose_planes_share_their_rows_are_whole) {
  const Look look = look_of(
      "video/x-raw,format=I420,width=16,height=10,framerate=1/1,interlace-mode=interleaved,"
      "colorimetry=bt601");
  for (const gsize less : {0, 1}) {
    const BufferPtr usual = two_fields(look);
    BufferPtr buffer(gst_buffer_new_allocate(nullptr, 160 + 6 * 16, nullptr));
    GstMapInfo map;
    ASSERT_TRUE(gst_buffer_map(buffer.get(), &map, GST_MAP_WRITE));
    gst_buffer_extract(usual.get(), 0, map.data, 160);
    for (guint plane = 1; plane < 3; ++plane) {
      for (gsize line = 0; line < 6; ++line) {
        gst_buffer_extract(usual.get(), GST_VIDEO_INFO_PLANE_OFFSET(&look.info, plane) + line * 8,
                           map.data + 160 + 16 * line + 8 * (plane - 1), 8);
      }
    }
    gst_buffer_unmap(buffer.get(), &map);
    gst_buffer_resize(buffer.get(), 0, static_cast<gssize>(160 + 6 * 16 - less));
    gsize offset[GST_VIDEO_MAX_PLANES] = {0, 160, 168};
    gint stride[GST_VIDEO_MAX_PLANES] = {16, 16, 16};
    gst_buffer_add_video_meta_full(buffer.get(), GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_I420,
                                   16, 10, 3, offset, stride);
    const vlm::Result<vlm::Frame> frame = FrameConverter(look).convert(buffer.get());
    ASSERT_TRUE(frame.ok());
    EXPECT_EQ(frame->rgb[0] > 200, less == 1) << "the first field is red, the second blue";
  }
}

}  // namespace
}  // namespace gstvlm
