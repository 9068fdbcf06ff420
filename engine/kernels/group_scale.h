// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/bfloat16.h"
#include "kernels/packed_matrix.h"

namespace vlm {

/// kInt4: the scale of an input's group in the packed row at `row`.
inline float group_scale(const PackedShape& shape, const std::byte* row, int64_t input) {
  uint16_t scale;
  std::memcpy(&scale, row + shape.scale_at(input), sizeof scale);
  return widen(scale);
}

/// kInt8: the scale of the packed row at `row`.
inline float int8_scale(const PackedShape& shape, const std::byte* row) {
  float scale;
  std::memcpy(&scale, row + shape.padded_inputs(), sizeof scale);
  return scale;
}

}  // namespace vlm
