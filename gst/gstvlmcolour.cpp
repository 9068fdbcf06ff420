// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmcolour.h"

#include <algorithm>

#include "gstvlmlayout.h"
#include "kernels/cpu.h"
#include "kernels/rounded.h"

namespace gstvlm {
namespace {

constexpr size_t kAtOnce = 128;

// `count` pixels, kAtOnce at most. In steps that compilers can vectorise: computed, put together.
template <typename Sample>
VLM_INLINE inline void to_rgb(const Sample* luma, const Sample* blues, const Sample* reds,
                              const vlm::YuvMatrix& matrix, size_t count, uint8_t* to) {
  float y[kAtOnce];
  float cb[kAtOnce];
  float cr[kAtOnce];
  for (size_t i = 0; i < count; ++i) {
    y[i] = static_cast<float>(luma[i] - matrix.offset[0]) * matrix.luma;
    cb[i] = static_cast<float>(blues[i] - matrix.offset[1]);
    cr[i] = static_cast<float>(reds[i] - matrix.offset[2]);
  }
  uint8_t red[kAtOnce];
  uint8_t green[kAtOnce];
  uint8_t blue[kAtOnce];
  for (size_t i = 0; i < count; ++i) {
    red[i] = vlm::nearest_byte(y[i] + matrix.red * cr[i]);
  }
  for (size_t i = 0; i < count; ++i) {
    green[i] = vlm::nearest_byte(y[i] - matrix.green_b * cb[i] - matrix.green_r * cr[i]);
  }
  for (size_t i = 0; i < count; ++i) {
    blue[i] = vlm::nearest_byte(y[i] + matrix.blue * cb[i]);
  }
  for (size_t i = 0; i < count; ++i, to += 3) {
    to[0] = red[i];
    to[1] = green[i];
    to[2] = blue[i];
  }
}

template <typename Sample>
VLM_INLINE inline void packed_to_rgb(const Sample* from, const vlm::YuvMatrix& matrix, size_t count,
                                     uint8_t* to) {
  Sample y[kAtOnce];
  Sample cb[kAtOnce];
  Sample cr[kAtOnce];
  for (size_t i = 0; i < count; ++i) {
    y[i] = from[4 * i + 1];
    cb[i] = from[4 * i + 2];
    cr[i] = from[4 * i + 3];
  }
  to_rgb(y, cb, cr, matrix, count, to);
}

template <typename Sample>
std::vector<uint8_t> rgb_of(const std::vector<uint8_t>& packed, const GstVideoInfo& info) {
  const vlm::YuvMatrix matrix = matrix_of(info);
  const auto width = static_cast<size_t>(GST_VIDEO_INFO_WIDTH(&info));
  const auto height = static_cast<size_t>(GST_VIDEO_INFO_HEIGHT(&info));
  const auto stride = static_cast<size_t>(GST_VIDEO_INFO_PLANE_STRIDE(&info, 0));
  std::vector<uint8_t> rgb;
  // Filled as it grows: memory that is cleared first passes through the caches twice.
  rgb.reserve(width * height * 3);
  uint8_t some[3 * kAtOnce];
  for (size_t y = 0; y < height; ++y) {
    const auto* from = reinterpret_cast<const Sample*>(packed.data() + y * stride);
    for (size_t at = 0; at < width; at += kAtOnce) {
      const size_t count = std::min(kAtOnce, width - at);
      vlm::with_vectors([&]() VLM_INLINE { packed_to_rgb(from + 4 * at, matrix, count, some); });
      rgb.insert(rgb.end(), some, some + 3 * count);
    }
  }
  return rgb;
}

// A row's colour differences, one of each for every pixel.
struct Differences {
  std::vector<uint8_t> cb, cr;

  explicit Differences(size_t width) : cb(width), cr(width) {}
};

// Each for two pixels.
void repeat(const uint8_t* from, std::vector<uint8_t>& to) {
  const size_t pairs = to.size() / 2;
  for (size_t i = 0; i < pairs; ++i) {
    to[2 * i] = to[2 * i + 1] = from[i];
  }
  if (to.size() % 2 != 0) {
    to.back() = from[pairs];
  }
}

// Between each and the next: those of `from` lie on the left pixel of two (`cosited`) or between.
void interpolate(const std::vector<uint8_t>& from, bool cosited, std::vector<uint8_t>& to) {
  const size_t pairs = to.size() / 2;
  const auto mix = [&](size_t near, size_t far) {
    return static_cast<uint8_t>((3 * from[near] + from[far] + 2) >> 2);
  };
  for (size_t i = 0; i < pairs; ++i) {
    const size_t next = std::min(i + 1, from.size() - 1);
    to[2 * i] = cosited || i == 0 ? from[i] : mix(i, i - 1);
    to[2 * i + 1] = cosited ? static_cast<uint8_t>((from[i] + from[next] + 1) >> 1) : mix(i, next);
  }
  if (to.size() % 2 != 0) {
    to.back() = cosited || pairs == 0 ? from[pairs] : mix(pairs, pairs - 1);
  }
}

// I420 and YV12: the differences of a row of pixels are those of the row they lie on.
class RepeatedDifferences {
 public:
  explicit RepeatedDifferences(const GstVideoFrame& frame)
      : frame_(frame), row_(static_cast<size_t>(GST_VIDEO_FRAME_WIDTH(&frame))) {}

  const Differences& row(int y) {
    if (y % 2 == 0) {
      repeat(line(1, y / 2), row_.cb);
      repeat(line(2, y / 2), row_.cr);
    }
    return row_;
  }

 private:
  const uint8_t* line(guint component, int y) const {
    return static_cast<const uint8_t*>(GST_VIDEO_FRAME_COMP_DATA(&frame_, component)) +
           static_cast<std::ptrdiff_t>(y) * GST_VIDEO_FRAME_COMP_STRIDE(&frame_, component);
  }

  const GstVideoFrame& frame_;
  Differences row_;
};

// NV12: interpolated along the row, rounded, then between the rows; cuda/picture_index.h has the
// same for one pixel.
class InterpolatedDifferences {
 public:
  explicit InterpolatedDifferences(const vlm::PictureLayout& layout)
      : layout_(layout),
        own_(static_cast<size_t>(layout.width + 1) / 2),
        rows_{Differences(static_cast<size_t>(layout.width)),
              Differences(static_cast<size_t>(layout.width))},
        mixed_(static_cast<size_t>(layout.width)) {}

  const Differences& row(int y) {
    const int own = y / 2;
    if (own == made_) {
      make(own);
    }
    if (y == 0 || (y % 2 != 0 && y == layout_.height - 1)) {
      return rows_[own % 2];
    }
    const int other = y % 2 != 0 ? own + 1 : own - 1;
    if (other == made_) {
      make(other);
    }
    mix(rows_[own % 2].cb, rows_[other % 2].cb, mixed_.cb);
    mix(rows_[own % 2].cr, rows_[other % 2].cr, mixed_.cr);
    return mixed_;
  }

 private:
  void make(int row) {
    const uint8_t* line = layout_.planes[1] + row * layout_.strides[1];
    for (size_t i = 0; i < own_.cb.size(); ++i) {
      own_.cb[i] = line[2 * i];
      own_.cr[i] = line[2 * i + 1];
    }
    interpolate(own_.cb, layout_.cosited, rows_[row % 2].cb);
    interpolate(own_.cr, layout_.cosited, rows_[row % 2].cr);
    made_ = row + 1;
  }

  static void mix(const std::vector<uint8_t>& near, const std::vector<uint8_t>& far,
                  std::vector<uint8_t>& to) {
    for (size_t i = 0; i < to.size(); ++i) {
      to[i] = static_cast<uint8_t>((3 * near[i] + far[i] + 2) >> 2);
    }
  }

  const vlm::PictureLayout& layout_;
  Differences own_;
  Differences rows_[2];  // the newest two, of even and of odd rows
  Differences mixed_;
  int made_ = 0;  // so many rows of them
};

// Row by row, so that what is made on the way stays in the nearest cache.
template <typename Source>
std::vector<uint8_t> by_rows(const GstVideoFrame& frame, Source differences) {
  const auto width = static_cast<size_t>(GST_VIDEO_FRAME_WIDTH(&frame));
  const int height = GST_VIDEO_FRAME_HEIGHT(&frame);
  const vlm::YuvMatrix matrix = matrix_of(frame.info);
  const auto* luma = static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0));
  std::vector<uint8_t> rgb;
  rgb.reserve(width * static_cast<size_t>(height) * 3);
  std::vector<uint8_t> line(width * 3);
  for (int y = 0; y < height; ++y, luma += GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0)) {
    const Differences& colour = differences.row(y);
    vlm::with_vectors([&]() VLM_INLINE {
      for (size_t x = 0; x < width; x += kAtOnce) {
        to_rgb(luma + x, colour.cb.data() + x, colour.cr.data() + x, matrix,
               std::min(kAtOnce, width - x), line.data() + 3 * x);
      }
    });
    rgb.insert(rgb.end(), line.begin(), line.end());
  }
  return rgb;
}

}  // namespace

std::vector<uint8_t> rgb_of_packed(const std::vector<uint8_t>& packed, const GstVideoInfo& info) {
  return GST_VIDEO_INFO_FORMAT(&info) == GST_VIDEO_FORMAT_AYUV64 ? rgb_of<uint16_t>(packed, info)
                                                                 : rgb_of<uint8_t>(packed, info);
}

std::vector<uint8_t> rgb_of_planes(const GstVideoFrame& frame) {
  if (GST_VIDEO_INFO_INTERLACE_MODE(&frame.info) != GST_VIDEO_INTERLACE_MODE_PROGRESSIVE) {
    return {};
  }
  switch (GST_VIDEO_FRAME_FORMAT(&frame)) {
    case GST_VIDEO_FORMAT_I420:
    case GST_VIDEO_FORMAT_YV12:
      return by_rows(frame, RepeatedDifferences(frame));
    case GST_VIDEO_FORMAT_NV12: {
      const auto layout = plain_layout(frame, GST_VIDEO_ORIENTATION_IDENTITY);
      return layout ? by_rows(frame, InterpolatedDifferences(*layout)) : std::vector<uint8_t>();
    }
    default:
      return {};
  }
}

}  // namespace gstvlm
