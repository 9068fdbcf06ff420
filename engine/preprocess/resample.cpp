// SPDX-License-Identifier: LGPL-2.1-or-later
#include "preprocess/resample.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

namespace vlm {
namespace {

constexpr int64_t kChannels = 3;

double sinc(double x) {
  return x == 0 ? 1 : std::sin(x * std::numbers::pi) / (x * std::numbers::pi);
}

double bicubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0;
}

double hamming(double x) {
  x = std::abs(x);
  if (x == 0) return 1;
  if (x >= 1) return 0;
  x *= std::numbers::pi;
  return std::sin(x) / x * (0.54F + 0.46F * std::cos(x));  // PIL has these in single precision
}

struct Filter {
  double (*weight)(double);
  double support;
};

Filter filter_of(Resample filter) {
  switch (filter) {
    case Resample::kLanczos:
      return {[](double x) { return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0.0; }, 3};
    case Resample::kBilinear:
      return {[](double x) { return std::max(0.0, 1 - std::abs(x)); }, 1};
    case Resample::kBox:
      return {[](double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }, 0.5};
    case Resample::kHamming:
      return {hamming, 1};
    case Resample::kBicubic:
    case Resample::kNearest:
      break;
  }
  return {bicubic, 2};
}

Taps make_taps(int64_t in, int64_t out, int64_t begin, int64_t count, const Filter& filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);
  const double support = filter.support * stretch;
  Taps taps;
  taps.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.spans.resize(static_cast<size_t>(count));
  taps.weights.resize(static_cast<size_t>(count * taps.stride));
  std::vector<double> raw(static_cast<size_t>(taps.stride));
  for (int64_t position = 0; position < count; ++position) {
    const double centre = (static_cast<double>(begin + position) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const auto last = std::min<int64_t>(in, static_cast<int64_t>(centre + support + 0.5));
    double total = 0;
    for (int64_t i = first; i < last; ++i) {
      const double weight =
          filter.weight((static_cast<double>(i) - centre + 0.5) * (1.0 / stretch));
      raw[static_cast<size_t>(i - first)] = weight;
      total += weight;
    }
    taps.spans[static_cast<size_t>(position)] = {first, last - first};
    int32_t* weights = taps.weights.data() + position * taps.stride;
    for (int64_t i = 0; i < last - first; ++i) {
      double weight = raw[static_cast<size_t>(i)];
      if (total != 0) weight /= total;
      weights[i] = static_cast<int32_t>(weight * (1 << kTapBits) + (weight < 0 ? -0.5 : 0.5));
    }
  }
  return taps;
}

// One pixel: the weighted sum of `count` neighbours in a row.
void weigh(const uint8_t* in, const int32_t* weights, int64_t count, uint8_t* out) {
  int32_t r = kTapHalf, g = r, b = r;
  for (int64_t i = 0; i < count; ++i, in += kChannels) {
    r += in[0] * weights[i];
    g += in[1] * weights[i];
    b += in[2] * weights[i];
  }
  out[0] = tapped_byte(r);
  out[1] = tapped_byte(g);
  out[2] = tapped_byte(b);
}

Bitmap resample_rows(const BitmapView& source, const Taps& taps) {
  const auto width = static_cast<int64_t>(taps.spans.size());
  Bitmap result{width, source.height, {}};
  result.rgb.resize(static_cast<size_t>(width * source.height * kChannels));
  uint8_t* out = result.rgb.data();
  const int64_t row_bytes = source.width * kChannels;
  for (int64_t y = 0; y < source.height; ++y) {
    const uint8_t* row = source.rgb + y * row_bytes;
    // Rows that repeat, such as those of padding, are computed once.
    if (y > 0 && std::equal(row, row + row_bytes, row - row_bytes)) {
      out = std::copy_n(out - width * kChannels, width * kChannels, out);
      continue;
    }
    for (int64_t x = 0; x < width; ++x, out += kChannels) {
      const auto [first, count] = taps.spans[static_cast<size_t>(x)];
      weigh(row + first * kChannels, taps.at(x), count, out);
    }
  }
  return result;
}

Bitmap resample_columns(const Bitmap& source, const Taps& taps) {
  const auto height = static_cast<int64_t>(taps.spans.size());
  const int64_t row_bytes = source.width * kChannels;
  Bitmap result{source.width, height, {}};
  result.rgb.resize(static_cast<size_t>(height * row_bytes));
  std::vector<int32_t> sums(static_cast<size_t>(row_bytes));
  for (int64_t y = 0; y < height; ++y) {
    const auto [first, count] = taps.spans[static_cast<size_t>(y)];
    std::fill(sums.begin(), sums.end(), kTapHalf);
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t* row = source.rgb.data() + (first + i) * row_bytes;
      const int32_t weight = taps.at(y)[i];
      for (int64_t x = 0; x < row_bytes; ++x) sums[static_cast<size_t>(x)] += row[x] * weight;
    }
    std::transform(sums.begin(), sums.end(), result.rgb.data() + y * row_bytes, tapped_byte);
  }
  return result;
}

// The source position of each output position; the sum of steps is what PIL truncates.
std::vector<int64_t> nearest_positions(int64_t in, int64_t out, int64_t begin, int64_t count) {
  const double step = static_cast<double>(in) / static_cast<double>(out);
  std::vector<int64_t> positions;
  double at = step * 0.5;
  for (int64_t i = 0; i < begin + count; ++i, at += step) {
    if (i >= begin) positions.push_back(std::min(static_cast<int64_t>(at), in - 1));
  }
  return positions;
}

Bitmap pick(const BitmapView& source, const std::vector<int64_t>& columns,
            const std::vector<int64_t>& rows) {
  Bitmap result{static_cast<int64_t>(columns.size()), static_cast<int64_t>(rows.size()), {}};
  result.rgb.reserve(columns.size() * rows.size() * kChannels);
  for (int64_t y : rows) {
    for (int64_t x : columns) {
      const uint8_t* pixel = source.rgb + (y * source.width + x) * kChannels;
      result.rgb.insert(result.rgb.end(), pixel, pixel + kChannels);
    }
  }
  return result;
}

std::vector<int64_t> range(int64_t begin, int64_t count) {
  std::vector<int64_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), begin);
  return positions;
}

// One input position for each output position, as it is.
Taps picked_taps(const std::vector<int64_t>& positions) {
  Taps taps;
  taps.stride = 1;
  for (const int64_t position : positions) taps.spans.push_back({position, 1});
  taps.weights.assign(positions.size(), 1 << kTapBits);
  return taps;
}

}  // namespace

Taps resample_taps(int64_t in, int64_t out, int64_t begin, int64_t count, Resample filter) {
  if (filter == Resample::kNearest) return picked_taps(nearest_positions(in, out, begin, count));
  if (in == out) return picked_taps(range(begin, count));
  return make_taps(in, out, begin, count, filter_of(filter));
}

Bitmap resample(const BitmapView& source, int64_t width, int64_t height, Resample filter,
                const Window& window) {
  if (filter == Resample::kNearest) {
    return pick(source, nearest_positions(source.width, width, window.left, window.width),
                nearest_positions(source.height, height, window.top, window.height));
  }
  const Filter shape = filter_of(filter);
  const Bitmap columns =
      width != source.width
          ? resample_rows(source, make_taps(source.width, width, window.left, window.width, shape))
          : pick(source, range(window.left, window.width), range(0, source.height));
  return height != source.height
             ? resample_columns(columns,
                                make_taps(source.height, height, window.top, window.height, shape))
             : pick(columns, range(0, columns.width), range(window.top, window.height));
}

}  // namespace vlm
