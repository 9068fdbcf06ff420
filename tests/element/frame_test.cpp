// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmframe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <string>

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

std::ostream& operator<<(std::ostream& out, const Coding& coding) {
  return out << coding.colorimetry;
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

// Its lines are half as many, whatever metadata say of the frame that it belongs to.
TEST(Frame, field_in_a_buffer_is_a_picture) {
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
TEST(Frame, first_field_of_a_frame_is_the_picture) {
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
TEST(Frame, what_moves_has_no_comb) {
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
TEST(Frame, field_without_its_last_line_of_colours_is_not_the_picture) {
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
TEST(Frame, progressive_frame_of_mixed_video_is_not_woven) {
  const Look mixed =
      look_of("video/x-raw,format=I420,width=16,height=16,framerate=25/1,interlace-mode=mixed");
  const Look progressive = look_of("video/x-raw,format=I420,width=16,height=16,framerate=25/1");
  const BufferPtr buffer = two_fields(mixed);
  const vlm::Result<vlm::Frame> one = FrameConverter(mixed).convert(buffer.get());
  const vlm::Result<vlm::Frame> other = FrameConverter(progressive).convert(buffer.get());
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_EQ(one->rgb, other->rgb);
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

// 2 × 3 pixels, each of three equal bytes:  0 1
//                                           2 3
//                                           4 5
TEST(Frame, orientations_are_those_of_the_tags) {
  vlm::Frame frame{2, 3, {}};
  for (uint8_t pixel = 0; pixel < 6; ++pixel) {
    frame.rgb.insert(frame.rgb.end(), 3, pixel);
  }
  const std::pair<GstVideoOrientationMethod, std::array<int, 6>> cases[] = {
      {GST_VIDEO_ORIENTATION_IDENTITY, {0, 1, 2, 3, 4, 5}},
      {GST_VIDEO_ORIENTATION_90R, {4, 2, 0, 5, 3, 1}},
      {GST_VIDEO_ORIENTATION_180, {5, 4, 3, 2, 1, 0}},
      {GST_VIDEO_ORIENTATION_90L, {1, 3, 5, 0, 2, 4}},
      {GST_VIDEO_ORIENTATION_HORIZ, {1, 0, 3, 2, 5, 4}},
      {GST_VIDEO_ORIENTATION_VERT, {4, 5, 2, 3, 0, 1}},
      {GST_VIDEO_ORIENTATION_UL_LR, {0, 2, 4, 1, 3, 5}},
      {GST_VIDEO_ORIENTATION_UR_LL, {5, 3, 1, 4, 2, 0}},
  };
  for (const auto& [method, expected] : cases) {
    const vlm::Frame result = turned(frame, method);
    EXPECT_EQ(result.width * result.height, 6);
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(result.rgb[i * 3], expected[i]) << "method " << method << " pixel " << i;
    }
  }
}

}  // namespace
}  // namespace gstvlm
