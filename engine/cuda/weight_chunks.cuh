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
#include "cuda/matvec_index.h"
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

/// The same with sums that start at zero.
template <typename T>
__device__ inline void start_tile(TileSums& sums, uint32_t a0, uint32_t a1, uint32_t a2,
                                  uint32_t a3, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%10,%10,%10};"
        : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%10,%10,%10,%10};"
        : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f));
  }
#endif
}

/// Asks for what lies there to come to the second-level cache.
__device__ inline void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
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

// Each kind of chunks has Bits, what a lane loads of one chunk, load(), which gives zeros behind
// the end, announce(), which asks for a chunk that will be loaded, and multiply(), which adds the
// chunk's products with all rows of x to the sums. Rows that there are not are read as some other:
// nobody takes their sums.

/// A lane's part of two weight rows, 16 bytes of each 64.
struct LaneRows {
  const char *low, *high;
  int left;  // bytes from here to the end of a row

  __device__ LaneRows(const GpuMatrix& matrix, OutputPair rows, int64_t row_bytes, int t) {
    const auto* weights = static_cast<const char*>(matrix.weights) + t * 16;
    low = weights + (rows.low < 0 ? 0 : rows.low) * row_bytes;
    high = weights + (rows.high < 0 ? 0 : rows.high) * row_bytes;
    left = rows.low < 0 && rows.high < 0 ? 0 : static_cast<int>(row_bytes) - t * 16;
  }
  __device__ void load(int chunk, uint4& low_bits, uint4& high_bits) const {
    const bool there = chunk * 64 < left;
    low_bits = there ? load_once(low + chunk * 64) : uint4{};
    high_bits = there ? load_once(high + chunk * 64) : uint4{};
  }
  __device__ void announce(int chunk) const {
    if (chunk * 64 >= left) return;
    prefetch(low + chunk * 64);
    prefetch(high + chunk * 64);
  }
};

/// Weights of T as they are: 32 inputs, eight of each lane.
template <typename T>
struct PlainChunks {
  static constexpr int kInputs = 32;
  static constexpr int kAhead = 4;  // chunks on their way to each warp; measured on an H100
  struct Bits {
    uint4 low, high;
  };

  LaneRows rows;

  __device__ PlainChunks(const GpuMatrix& matrix, OutputPair pair, int t)
      : rows(matrix, pair, matrix.inputs * 2, t) {}
  __device__ Bits load(int chunk) const {
    Bits bits;
    rows.load(chunk, bits.low, bits.high);
    return bits;
  }
  __device__ void announce(int chunk) const { rows.announce(chunk); }
  template <typename X, int kTiles>
  __device__ static void multiply(const Bits& bits, int chunk, int t, const X& x,
                                  TileSums (&sums)[kTiles]) {
    const uint4 &l = bits.low, &h = bits.high;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const uint4 b = x.load(tile, chunk * kInputs + t * 8);
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
  static constexpr int kInputs = 64;
  static constexpr int kAhead = 4;
  struct Bits {
    uint4 low, high;
  };

  LaneRows rows;

  __device__ Int8Chunks(const GpuMatrix& matrix, OutputPair pair, int t)
      : rows(matrix, pair, gpu_row_bytes(PackedFormat::kInt8, matrix.inputs), t) {}
  __device__ Bits load(int chunk) const {
    Bits bits;
    rows.load(chunk, bits.low, bits.high);
    return bits;
  }
  __device__ void announce(int chunk) const { rows.announce(chunk); }
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
  __device__ static void multiply(const Bits& bits, int chunk, int t, const X& x,
                                  TileSums (&sums)[kTiles]) {
    const uint4 &l = bits.low, &h = bits.high;
    const uint32_t lows[4] = {l.x, l.y, l.z, l.w}, highs[4] = {h.x, h.y, h.z, h.w};
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
        const uint4 b = x.load(tile, chunk * kInputs + t * 16 + part * 8);
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
  static constexpr int kInputs = 128;
  static constexpr int kAhead = 2;
  static constexpr int kGroups = 4;
  struct Bits {
    uint4 low, high;
    uint2 low_scales, high_scales;
  };

  LaneRows rows;
  const uint2 *low_scales, *high_scales;

  __device__ Int4Chunks(const GpuMatrix& matrix, OutputPair pair, int t)
      : rows(matrix, pair, gpu_row_bytes(PackedFormat::kInt4, matrix.inputs), t) {
    const int64_t bytes = gpu_scale_bytes(PackedFormat::kInt4, matrix.inputs);
    const auto* scales = static_cast<const char*>(matrix.scales);
    low_scales = reinterpret_cast<const uint2*>(scales + (pair.low < 0 ? 0 : pair.low) * bytes);
    high_scales = reinterpret_cast<const uint2*>(scales + (pair.high < 0 ? 0 : pair.high) * bytes);
  }
  __device__ Bits load(int chunk) const {
    Bits bits;
    rows.load(chunk, bits.low, bits.high);
    const bool there = chunk * 64 < rows.left;
    // The next chunks' lie in the same sector, so these are kept.
    bits.low_scales = there ? __ldg(low_scales + chunk) : uint2{};
    bits.high_scales = there ? __ldg(high_scales + chunk) : uint2{};
    return bits;
  }
  __device__ void announce(int chunk) const { rows.announce(chunk); }
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
  __device__ static void multiply(const Bits& bits, int chunk, int t, const X& x,
                                  TileSums (&sums)[kTiles]) {
    const uint4 &l = bits.low, &h = bits.high;
    const uint32_t lows[kGroups] = {l.x, l.y, l.z, l.w}, highs[kGroups] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint32_t lw = lows[group], hw = highs[group];
      const uint32_t a[2][4] = {{pair(lw, 0), pair(hw, 0), pair(lw, 1), pair(hw, 1)},
                                {pair(lw, 2), pair(hw, 2), pair(lw, 3), pair(hw, 3)}};
      const float low_scale = group_scale(bits.low_scales, group);
      const float high_scale = group_scale(bits.high_scales, group);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        constexpr int kGroup = static_cast<int>(PackedShape::kGroup);
        const uint4 b = x.load(tile, chunk * kInputs + group * kGroup + t * 8);
        TileSums part;
        start_tile<T>(part, a[0][0], a[0][1], a[0][2], a[0][3], b.x, b.y);
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
