// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <ostream>
#include <string>

#include "gstvlmframe.h"

namespace gstvlm::test {

inline Look look_of(const std::string& caps_text) {
  gst_init(nullptr, nullptr);
  GstCaps* caps = gst_caps_from_string(caps_text.c_str());
  Look look{};
  EXPECT_TRUE(gst_video_info_from_caps(&look.info, caps)) << caps_text;
  look.orientation = GST_VIDEO_ORIENTATION_IDENTITY;
  gst_caps_unref(caps);
  return look;
}

inline Look look_of(const std::string& format, int width, int height,
                    const std::string& more = {}) {
  return look_of("video/x-raw,framerate=1/1,format=" + format + ",width=" + std::to_string(width) +
                 ",height=" + std::to_string(height) + more);
}

/// An I420 picture of one colour.
inline BufferPtr i420(const Look& look, const std::array<int, 3>& yuv) {
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

inline std::ostream& operator<<(std::ostream& out, const Coding& coding) {
  return out << coding.colorimetry;
}

// The standards' arithmetic, in floating point: an independent reference.
inline std::array<double, 3> reference_rgb(const Coding& coding, const std::array<int, 3>& yuv) {
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

}  // namespace gstvlm::test
