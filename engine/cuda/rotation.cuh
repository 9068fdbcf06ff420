// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "cuda/kernels.h"
#include "cuda/types.cuh"

namespace vlm {

/// Elements i … and head_dim / 2 + i … of a head after x · cos + rotate_half(x) · sin, every
/// product rounded to T as the reference's are. In place.
template <typename T, int kCount>
__device__ inline void rotate_pairs(const RotateTarget& target, int64_t row, int64_t i,
                                    float (&low)[kCount], float (&high)[kCount]) {
  const int64_t half = target.head_dim / 2;
  const int64_t angle = target.angles == nullptr ? row : target.angles[row];
  const T* cos = static_cast<const T*>(target.cos) + angle * target.head_dim + i;
  const T* sin = static_cast<const T*>(target.sin) + angle * target.head_dim + i;
  float cos_low[kCount], cos_high[kCount], sin_low[kCount], sin_high[kCount];
  widen_all<T>(cos, cos_low);
  widen_all<T>(cos + half, cos_high);
  widen_all<T>(sin, sin_low);
  widen_all<T>(sin + half, sin_high);
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const float a = low[k], b = high[k];
    low[k] = rounded<T>(a * cos_low[k]) + rounded<T>(-b * sin_low[k]);
    high[k] = rounded<T>(b * cos_high[k]) + rounded<T>(a * sin_high[k]);
  }
}

/// First element of a row's kv head in a cache.
__device__ inline int64_t target_offset(const RotateTarget& target, int64_t row, int64_t kv_head) {
  return (target.slots[row] * target.kv_heads + kv_head) * target.head_dim;
}

}  // namespace vlm
