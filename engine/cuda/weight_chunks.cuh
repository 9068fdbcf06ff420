// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What 16 bytes of a weight row are to the matrix instruction m16n8k16, for each way to store
// weights. Lane 4g + t of a warp holds 16 bytes of the tile's rows g and g + 8. The instruction
// wants four inputs of each lane at a time; which ones they are is open as long as x is read in the
// same order.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/kernels.h"
#include "cuda/packed_index.h"
#include "cuda/types.cuh"

namespace vlm {

/// Four sums of a lane: rows g and g + 8, columns 2t and 2t + 1.
using TileSums = float[4];

/// sums += A · B over 16 inputs: a0, a2 of row g, a1, a3 of row g + 8.
template <typename T>
__device__ inline void multiply_tile(TileSums& sums, uint32_t a0, uint32_t a1, uint32_t a2,
                                     uint32_t a3, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
#endif
}

/// 16 bytes that this kernel reads once and nobody soon again. Volatile: stays before the wait.
__device__ inline uint4 load_once(const void* address) {
  uint4 bits;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "l"(address));
  return bits;
}

__device__ inline uint32_t pair_of(float low, float high, const __nv_bfloat16*) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
__device__ inline uint32_t pair_of(float low, float high, const __half*) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

/// Weights of T as they are: 32 inputs, eight of each lane.
template <typename T>
struct PlainChunks {
  static constexpr int64_t kInputs = 32;

  const char *low, *high;  // of the lane's rows; null: no such row
  int64_t inputs, lane_input;

  __device__ PlainChunks(const GpuMatrix& matrix, int64_t low_row, int64_t high_row, int t)
      : low(row(matrix, low_row)),
        high(row(matrix, high_row)),
        inputs(matrix.inputs),
        lane_input(t * 8) {}

  __device__ static const char* row(const GpuMatrix& matrix, int64_t index) {
    if (index < 0) return nullptr;
    return static_cast<const char*>(matrix.weights) + index * matrix.inputs * 2;
  }
  __device__ uint4 load(const char* row_of_weights, int64_t chunk) const {
    const int64_t input = chunk * kInputs + lane_input;
    if (row_of_weights == nullptr || input >= inputs) return {};
    return load_once(row_of_weights + input * 2);
  }
  template <typename X, int kTiles>
  __device__ void multiply(const uint4& l, const uint4& h, int64_t chunk, const X& x,
                           TileSums (&sums)[kTiles]) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint4 b = x.load(tile, chunk * kInputs + lane_input);
      multiply_tile<T>(sums[tile], l.x, h.x, l.y, h.y, b.x, b.y);
      multiply_tile<T>(sums[tile], l.z, h.z, l.w, h.w, b.z, b.w);
    }
  }
  /// By which a finished sum of an output is to be multiplied.
  __device__ static float scale(const GpuMatrix&, int64_t) {
    return 1;
  }
};

/// int8: 64 inputs, 16 of each lane.
template <typename T>
struct Int8Chunks {
  static constexpr int64_t kInputs = 64;

  const char *low, *high;
  int64_t padded, lane_input;

  __device__ Int8Chunks(const GpuMatrix& matrix, int64_t low_row, int64_t high_row, int t)
      : padded(gpu_padded_inputs(PackedFormat::kInt8, matrix.inputs)), lane_input(t * 16) {
    low = row(matrix, low_row);
    high = row(matrix, high_row);
  }
  __device__ const char* row(const GpuMatrix& matrix, int64_t index) const {
    return index < 0 ? nullptr : static_cast<const char*>(matrix.weights) + index * padded;
  }
  __device__ uint4 load(const char* row_of_weights, int64_t chunk) const {
    const int64_t input = chunk * kInputs + lane_input;
    if (row_of_weights == nullptr || input >= padded) return {};
    return load_once(row_of_weights + input);
  }
  // Two neighbouring bytes: as the low bits of 2²³ + 128 + value, which T holds exactly in the end.
  __device__ static uint32_t pair(uint32_t word, bool upper) {
    const uint32_t shifted = word ^ 0x80808080u;
    const uint32_t first = __byte_perm(shifted, 0x4B000000u, upper ? 0x7542 : 0x7540);
    const uint32_t second = __byte_perm(shifted, 0x4B000000u, upper ? 0x7543 : 0x7541);
    constexpr float kOffset = 8388608.0f + 128.0f;
    return pair_of(__uint_as_float(first) - kOffset, __uint_as_float(second) - kOffset,
                   static_cast<const T*>(nullptr));
  }
  template <typename X, int kTiles>
  __device__ void multiply(const uint4& l, const uint4& h, int64_t chunk, const X& x,
                           TileSums (&sums)[kTiles]) const {
    const uint32_t lows[4] = {l.x, l.y, l.z, l.w}, highs[4] = {h.x, h.y, h.z, h.w};
    const int64_t input = chunk * kInputs + lane_input;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      uint32_t a[2][4];
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint32_t lw = lows[part * 2 + step], hw = highs[part * 2 + step];
        a[step][0] = pair(lw, false);
        a[step][1] = pair(hw, false);
        a[step][2] = pair(lw, true);
        a[step][3] = pair(hw, true);
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 b = x.load(tile, input + part * 8);
        multiply_tile<T>(sums[tile], a[0][0], a[0][1], a[0][2], a[0][3], b.x, b.y);
        multiply_tile<T>(sums[tile], a[1][0], a[1][1], a[1][2], a[1][3], b.z, b.w);
      }
    }
  }
  __device__ static float scale(const GpuMatrix& matrix, int64_t output) {
    return static_cast<const float*>(matrix.scales)[output];
  }
};

/// int4: 128 inputs in four groups, eight of each lane and group.
template <typename T>
struct Int4Chunks {
  static constexpr int64_t kInputs = 128;
  static constexpr int kGroups = 4;

  const char *low, *high;
  const char *low_scales, *high_scales;
  int64_t row_bytes, scale_bytes;
  int lane;

  __device__ Int4Chunks(const GpuMatrix& matrix, int64_t low_row, int64_t high_row, int t)
      : row_bytes(gpu_row_bytes(PackedFormat::kInt4, matrix.inputs)),
        scale_bytes(gpu_scale_bytes(PackedFormat::kInt4, matrix.inputs)),
        lane(t) {
    const auto* weights = static_cast<const char*>(matrix.weights);
    const auto* scales = static_cast<const char*>(matrix.scales);
    low = low_row < 0 ? nullptr : weights + low_row * row_bytes;
    high = high_row < 0 ? nullptr : weights + high_row * row_bytes;
    // Of a row that is not there the sums are not used.
    low_scales = scales + (low_row < 0 ? 0 : low_row) * scale_bytes;
    high_scales = scales + (high_row < 0 ? 0 : high_row) * scale_bytes;
  }
  __device__ uint4 load(const char* row_of_weights, int64_t chunk) const {
    const int64_t byte = chunk * (kInputs / 2) + lane * 16;
    if (row_of_weights == nullptr || byte >= row_bytes) return {};
    return load_once(row_of_weights + byte);
  }
  __device__ static uint32_t pair(uint32_t word, int step) {
    const uint32_t nibbles = word >> (4 * step) & 0x000F000Fu;
    if constexpr (std::is_same_v<T, __half>) {
      const uint32_t bits = nibbles | 0x64006400u, offset = 0x64086408u;  // 1024 + value, 1032
      const __half2 value =
          __hsub2(reinterpret_cast<const __half2&>(bits), reinterpret_cast<const __half2&>(offset));
      return reinterpret_cast<const uint32_t&>(value);
    } else {
      const uint32_t bits = nibbles | 0x43004300u, offset = 0x43084308u;  // 128 + value, 136
      const __nv_bfloat162 value = __hsub2(reinterpret_cast<const __nv_bfloat162&>(bits),
                                           reinterpret_cast<const __nv_bfloat162&>(offset));
      return reinterpret_cast<const uint32_t&>(value);
    }
  }
  __device__ static float group_scale(const uint2& scales, int group) {
    const uint32_t word = group < 2 ? scales.x : scales.y;
    return __uint_as_float(group % 2 == 0 ? word << 16 : word & 0xFFFF0000u);
  }
  template <typename X, int kTiles>
  __device__ void multiply(const uint4& l, const uint4& h, int64_t chunk, const X& x,
                           TileSums (&sums)[kTiles]) const {
    if (chunk * (kInputs / 2) >= row_bytes) return;
    const uint32_t lows[kGroups] = {l.x, l.y, l.z, l.w}, highs[kGroups] = {h.x, h.y, h.z, h.w};
    const uint2 ls = *reinterpret_cast<const uint2*>(low_scales + chunk * kGroups * 2);
    const uint2 hs = *reinterpret_cast<const uint2*>(high_scales + chunk * kGroups * 2);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint32_t lw = lows[group], hw = highs[group];
      const uint32_t a[2][4] = {{pair(lw, 0), pair(hw, 0), pair(lw, 1), pair(hw, 1)},
                                {pair(lw, 2), pair(hw, 2), pair(lw, 3), pair(hw, 3)}};
      const float low_scale = group_scale(ls, group), high_scale = group_scale(hs, group);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint4 b = x.load(tile, chunk * kInputs + group * PackedShape::kGroup + lane * 8);
        TileSums part = {};
        multiply_tile<T>(part, a[0][0], a[0][1], a[0][2], a[0][3], b.x, b.y);
        multiply_tile<T>(part, a[1][0], a[1][1], a[1][2], a[1][3], b.z, b.w);
        sums[tile][0] += part[0] * low_scale;
        sums[tile][1] += part[1] * low_scale;
        sums[tile][2] += part[2] * high_scale;
        sums[tile][3] += part[3] * high_scale;
      }
    }
  }
  __device__ static float scale(const GpuMatrix&, int64_t) {
    return 1;
  }
};

}  // namespace vlm
