// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace vlm {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__device__ inline float widen(float value) {
  return value;
}
__device__ inline float widen(__half value) {
  return __half2float(value);
}
__device__ inline float widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

__device__ inline void store(float value, float* out) {
  *out = value;
}
__device__ inline void store(float value, __half* out) {
  *out = __float2half_rn(value);
}
__device__ inline void store(float value, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(value);
}

/// `value` as T holds it.
template <typename T>
__device__ inline float rounded(float value) {
  T narrow;
  store(value, &narrow);
  return widen(narrow);
}

/// Elements of T in 16 bytes.
template <typename T>
constexpr int kPer16Bytes = 16 / sizeof(T);

/// kCount neighbouring elements, widened: one, or as many as 16 bytes hold, at an address of that
/// alignment.
template <typename T, int kCount>
__device__ inline void widen_all(const T* from, float (&values)[kCount]) {
  static_assert(kCount == 1 || kCount == kPer16Bytes<T>);
  if constexpr (kCount == 1) {
    values[0] = widen(*from);
  } else {
    const uint4 bits = *reinterpret_cast<const uint4*>(from);
    const T* narrow = reinterpret_cast<const T*>(&bits);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = widen(narrow[i]);
  }
}

/// The other way round.
template <typename T, int kCount>
__device__ inline void store_all(const float (&values)[kCount], T* to) {
  static_assert(kCount == 1 || kCount == kPer16Bytes<T>);
  if constexpr (kCount == 1) {
    store(values[0], to);
  } else {
    uint4 bits;
    T* narrow = reinterpret_cast<T*>(&bits);
#pragma unroll
    for (int i = 0; i < kCount; ++i) store(values[i], narrow + i);
    *reinterpret_cast<uint4*>(to) = bits;
  }
}

/// Those of 16 bytes that are here already.
template <typename T>
__device__ inline void widen_bits(const uint4& bits, float (&values)[kPer16Bytes<T>]) {
  const T* narrow = reinterpret_cast<const T*>(&bits);
#pragma unroll
  for (int i = 0; i < kPer16Bytes<T>; ++i) values[i] = widen(narrow[i]);
}

/// Whether elements of T at `pointer`, and those `stride` further on, may be read 16 bytes at a
/// time.
template <typename T>
bool wide_at(const void* pointer, int64_t stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % kPer16Bytes<T> == 0;
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

/// The sum over a block of kWarps warps, the same in every thread. `parts` is shared memory of
/// kWarps floats that nobody uses otherwise until the next barrier.
template <int kWarps>
__device__ inline float block_sum(float value, float* parts) {
  value = warp_sum(value);
  if (threadIdx.x % kWarpSize == 0) parts[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) total += parts[warp];
  return total;
}

}  // namespace vlm
