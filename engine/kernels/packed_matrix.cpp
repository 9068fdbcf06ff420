// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"
#include "kernels/lanes.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;

float inverse_of(float scale) {
  return std::isnormal(scale) ? 1 / scale : 0;
}

void pack_bfloat16(const PackedShape& shape, const float* weights, std::byte* row) {
  auto* out = reinterpret_cast<uint16_t*>(row);
  for (int64_t i = 0; i < shape.inputs; ++i) narrow(weights[i], out + i);
}

// Lowest and highest of some weights and 0, what is no number left aside.
struct Range {
  float low = 0, high = 0;

  float size() const { return std::max(-low, high); }
};

// Puts the lowest and the highest of all lanes into the first.
template <int kLanes, int... kAll>
VLM_INLINE inline void fold(Lanes<kLanes>& low, Lanes<kLanes>& high,
                            std::integer_sequence<int, kAll...>) {
  const auto across = [&](auto by) VLM_INLINE {
    constexpr int kBy = decltype(by)::value;
    const Lanes<kLanes> lows = __builtin_shufflevector(low, low, (kAll ^ kBy)...);
    const Lanes<kLanes> highs = __builtin_shufflevector(high, high, (kAll ^ kBy)...);
    low = lows < low ? lows : low;
    high = high < highs ? highs : high;
  };
  if constexpr (kLanes > 8) across(std::integral_constant<int, 8>());
  across(std::integral_constant<int, 4>());
  across(std::integral_constant<int, 2>());
  across(std::integral_constant<int, 1>());
}

template <int kLanes>
VLM_INLINE inline Range range_of(const float* weights, int64_t count) {
  Lanes<kLanes> low = {}, high = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Lanes<kLanes> x;
    load<kLanes>(weights + i, x);
    low = x < low ? x : low;
    high = high < x ? x : high;
  }
  fold<kLanes>(low, high, std::make_integer_sequence<int, kLanes>());
  Range range = {low[0], high[0]};
  for (; i < count; ++i) {
    range = {std::min(range.low, weights[i]), std::max(range.high, weights[i])};
  }
  return range;
}

// The nearest whole numbers in [low, high], ties to even; low where a value is none.
template <int kLanes>
VLM_INLINE inline void levels(const float* weights, float inverse, float low, float high,
                              int8_t* out) {
  Lanes<kLanes> x, nearest;
  load<kLanes>(weights, x);
  x *= inverse;
  for (int lane = 0; lane < kLanes; ++lane) nearest[lane] = __builtin_nearbyintf(x[lane]);
  nearest = nearest < high ? nearest : Lanes<kLanes>{} + high;
  nearest = x >= low ? nearest : Lanes<kLanes>{} + low;
  using V = Vectors<kLanes>;
  const auto integers = __builtin_convertvector(nearest, typename V::Integers);
  const auto bytes = __builtin_convertvector(integers, typename V::Bytes);
  std::memcpy(out, &bytes, sizeof bytes);
}

// Up to kGroup weights, with zeros behind them where they are fewer.
struct Group {
  VLM_INLINE Group(const float* weights, int64_t count) : values(weights) {
    if (count < kGroup) {
      std::copy_n(weights, count, padded);
      values = padded;
    }
  }
  Group(const Group&) = delete;

  const float* values;
  float padded[kGroup] = {};
};

template <int kLanes>
VLM_INLINE inline void pack_int8(const PackedShape& shape, const float* weights, std::byte* row) {
  const float scale = range_of<kLanes>(weights, shape.inputs).size() / kMostOfByte;
  const float inverse = inverse_of(scale);
  auto* values = reinterpret_cast<int8_t*>(row);
  for (int64_t first = 0; first < shape.inputs; first += kGroup) {
    const Group group(weights + first, std::min(kGroup, shape.inputs - first));
    for (int64_t i = 0; i < kGroup; i += kLanes) {
      levels<kLanes>(group.values + i, inverse, -kMostOfByte, kMostOfByte, values + first + i);
    }
  }
  std::memcpy(row + shape.padded_inputs(), &scale, sizeof scale);
}

// The weight of the largest size, the first of several, becomes −8, which has no opposite.
template <int kLanes>
VLM_INLINE inline uint16_t int4_scale(const Group& group) {
  const Range range = range_of<kLanes>(group.values, kGroup);
  float top = range.high > -range.low ? range.high : range.low;
  if (range.high > 0 && range.high == -range.low) {
    top = *std::find_if(group.values, group.values + kGroup,
                        [&](float x) VLM_INLINE { return std::abs(x) == range.high; });
  }
  uint16_t scale;
  narrow(top / -8, &scale);
  return scale;
}

template <int kLanes>
VLM_INLINE inline void pack_group(const Group& group, float inverse, uint8_t* out) {
  int8_t all[kGroup];
  for (int64_t i = 0; i < kGroup; i += kLanes) {
    levels<kLanes>(group.values + i, inverse, -8, 7, all + i);
  }
  Vectors<16>::Halves pairs;
  static_assert(sizeof pairs == sizeof all);
  std::memcpy(&pairs, all, sizeof all);
  pairs = (pairs & 0x0F0F) ^ 0x0808;  // each 8 more
  const auto packed = __builtin_convertvector(pairs | pairs >> 4, Vectors<16>::Bytes);
  std::memcpy(out, &packed, sizeof packed);
}

template <int kLanes>
VLM_INLINE inline void pack_int4(const PackedShape& shape, const float* weights, std::byte* row) {
  auto* values = reinterpret_cast<uint8_t*>(row);
  for (int64_t first = 0; first < shape.padded_inputs(); first += kGroup) {
    const int64_t count = std::clamp<int64_t>(shape.inputs - first, 0, kGroup);
    const Group group(count > 0 ? weights + first : weights, count);
    const uint16_t scale = int4_scale<kLanes>(group);
    pack_group<kLanes>(group, inverse_of(widen(scale)), values + shape.value_at(first));
    std::memcpy(row + shape.scale_at(first), &scale, sizeof scale);
  }
}

}  // namespace

void pack_rows(const PackedShape& shape, const float* weights, int64_t count, std::byte* packed) {
  with_lanes([&](auto lanes) VLM_INLINE {
    constexpr int kLanes = decltype(lanes)::value;
    const std::byte* end = packed + count * shape.row_bytes();
    const float* from = weights;
    for (std::byte* row = packed; row < end; row += shape.row_bytes(), from += shape.inputs) {
      std::memset(row, 0, static_cast<size_t>(shape.row_bytes()));
      if (shape.format == PackedFormat::kInt8) {
        pack_int8<kLanes>(shape, from, row);
      } else if (shape.format == PackedFormat::kInt4) {
        pack_int4<kLanes>(shape, from, row);
      } else {
        pack_bfloat16(shape, from, row);
      }
    }
  });
}

void unpack_rows(const PackedShape& shape, const std::byte* packed, int64_t count, float* weights) {
  const int64_t padded = shape.padded_inputs();
  for (int64_t row = 0; row < count; ++row, packed += shape.row_bytes(), weights += shape.inputs) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(packed);
    const auto* halves = reinterpret_cast<const uint16_t*>(packed);
    if (shape.format == PackedFormat::kBFloat16) {
      for (int64_t i = 0; i < shape.inputs; ++i) weights[i] = widen(halves[i]);
    } else if (shape.format == PackedFormat::kInt8) {
      float scale;
      std::memcpy(&scale, packed + padded, sizeof scale);
      for (int64_t i = 0; i < shape.inputs; ++i) {
        weights[i] = static_cast<float>(static_cast<int8_t>(bytes[i])) * scale;
      }
    } else {
      for (int64_t first = 0; first < shape.inputs; first += kGroup) {
        const uint8_t* values = bytes + shape.value_at(first);
        const float scale = group_scale(shape, packed, first);
        for (int64_t i = 0; i < std::min(kGroup, shape.inputs - first); ++i) {
          const int value = values[i / 2] >> (i % 2 * 4) & 15;
          weights[first + i] = static_cast<float>(value - 8) * scale;
        }
      }
    }
  }
}

void matvec_reference(const MatVecArgs& args) {
  std::vector<float> weights(static_cast<size_t>(args.shape.inputs));
  for (int64_t output = 0; output < args.shape.outputs; ++output) {
    unpack_rows(args.shape, args.weights + output * args.shape.row_bytes(), 1, weights.data());
    for (int64_t row = 0; row < args.rows; ++row) {
      const float* x = args.x + row * args.shape.inputs;
      double sum = 0;
      for (int64_t i = 0; i < args.shape.inputs; ++i) {
        sum += static_cast<double>(x[i]) * static_cast<double>(weights[static_cast<size_t>(i)]);
      }
      args.y[row * args.shape.outputs + output] = static_cast<float>(sum);
    }
  }
}

}  // namespace vlm
