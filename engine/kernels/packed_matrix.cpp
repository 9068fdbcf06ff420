// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/bfloat16.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;

// The nearest whole number in [low, high]; low where `value` is none.
float level(float value, float low, float high) {
  return value >= low ? std::min(std::nearbyint(value), high) : low;
}

float inverse_of(float scale) {
  return std::isnormal(scale) ? 1 / scale : 0;
}

void pack_bfloat16(const PackedShape& shape, const float* weights, std::byte* row) {
  auto* out = reinterpret_cast<uint16_t*>(row);
  for (int64_t i = 0; i < shape.inputs; ++i) narrow(weights[i], out + i);
}

void pack_int8(const PackedShape& shape, const float* weights, std::byte* row) {
  float top = 0;
  for (int64_t i = 0; i < shape.inputs; ++i) top = std::max(top, std::abs(weights[i]));
  const float scale = top / 127;
  const float inverse = inverse_of(scale);
  auto* values = reinterpret_cast<int8_t*>(row);
  for (int64_t i = 0; i < shape.inputs; ++i) {
    values[i] = static_cast<int8_t>(level(weights[i] * inverse, -127, 127));
  }
  std::memcpy(row + shape.padded_inputs(), &scale, sizeof scale);
}

// The weight of the largest size becomes −8, the one value that has no opposite.
uint16_t int4_scale(const float* weights, int64_t count) {
  float top = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (std::abs(weights[i]) > std::abs(top)) top = weights[i];
  }
  uint16_t scale;
  narrow(top / -8, &scale);
  return scale;
}

void pack_int4(const PackedShape& shape, const float* weights, std::byte* row) {
  auto* values = reinterpret_cast<uint8_t*>(row);
  std::byte* scales = row + shape.padded_inputs() / 2;
  for (int64_t group = 0; group < shape.padded_inputs() / kGroup; ++group) {
    const int64_t first = group * kGroup;
    const int64_t count = std::clamp<int64_t>(shape.inputs - first, 0, kGroup);
    const uint16_t scale = int4_scale(weights + first, count);
    const float inverse = inverse_of(widen(scale));
    for (int64_t i = 0; i < kGroup; ++i) {
      const float value = i < count ? level(weights[first + i] * inverse, -8, 7) : 0;
      const auto bits = static_cast<uint8_t>(value + 8);
      uint8_t& byte = values[(first + i) / 2];
      byte = static_cast<uint8_t>(i % 2 == 0 ? bits : byte | bits << 4);
    }
    std::memcpy(scales + group * 2, &scale, sizeof scale);
  }
}

}  // namespace

void pack_rows(const PackedShape& shape, const float* weights, int64_t count, std::byte* packed) {
  const int64_t stride = shape.row_bytes();
  for (int64_t row = 0; row < count; ++row, weights += shape.inputs, packed += stride) {
    std::memset(packed, 0, static_cast<size_t>(stride));
    switch (shape.format) {
      case PackedFormat::kBFloat16:
        pack_bfloat16(shape, weights, packed);
        break;
      case PackedFormat::kInt8:
        pack_int8(shape, weights, packed);
        break;
      case PackedFormat::kInt4:
        pack_int4(shape, weights, packed);
        break;
    }
  }
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
      const uint16_t* scales = halves + padded / 4;
      for (int64_t i = 0; i < shape.inputs; ++i) {
        const int value = bytes[i / 2] >> (i % 2 * 4) & 15;
        weights[i] = static_cast<float>(value - 8) * widen(scales[i / kGroup]);
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
