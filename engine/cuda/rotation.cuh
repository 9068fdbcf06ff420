// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "cuda/kernels.h"
#include "cuda/types.cuh"

namespace vlm {

struct RotatedPair {
  float low, high;
};

/// Elements i and head_dim / 2 + i of a head after x · cos + rotate_half(x) · sin, every product
/// rounded to T as the reference's are.
template <typename T>
__device__ inline RotatedPair rotate_pair(const RotateTarget& target, int64_t row, int64_t i,
                                          float low, float high) {
  const int64_t half = target.head_dim / 2;
  const int64_t angle = target.angles == nullptr ? row : target.angles[row];
  const T* cos = static_cast<const T*>(target.cos) + angle * target.head_dim;
  const T* sin = static_cast<const T*>(target.sin) + angle * target.head_dim;
  return {rounded<T>(low * widen(cos[i])) + rounded<T>(-high * widen(sin[i])),
          rounded<T>(high * widen(cos[half + i])) + rounded<T>(low * widen(sin[half + i]))};
}

/// First element of a row's kv head in a cache.
__device__ inline int64_t target_offset(const RotateTarget& target, int64_t row, int64_t kv_head) {
  return (target.slots[row] * target.kv_heads + kv_head) * target.head_dim;
}

}  // namespace vlm
