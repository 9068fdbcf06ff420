// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"
#include "kernels/product_tiles.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>

#include "kernels/avx2.h"
#include "kernels/bfloat16.h"
#include "kernels/product_avx2.h"

namespace vlm::tiles {
namespace {

// Outputs whose sums with a tile of rows are in registers: with more of them GCC runs short of
// registers, with fewer the units wait.
constexpr int kOutputs = 4;
constexpr int kRegisters = 2;  // registers that hold a number of each row of a tile

// kOutputs outputs from `weights` on, times a tile of rows.
VLM_AVX2 VLM_INLINE inline void multiply_wide(const std::byte* weights, int64_t stride,
                                              const std::byte* x, int64_t steps, bool more,
                                              float* sums) {
  __m256 all[kOutputs][kRegisters];
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    VLM_UNROLL
    for (int half = 0; half < kRegisters; ++half) {
      all[i][half] = more ? _mm256_loadu_ps(sums + i * kSide + half * 8) : _mm256_setzero_ps();
    }
  }
  const auto* factors = reinterpret_cast<const float*>(weights);
  const auto* rows = reinterpret_cast<const float*>(x);
  const int64_t per_output = stride / static_cast<int64_t>(sizeof(float));
  for (int64_t input = 0; input < steps * kWideDepth; ++input, ++factors, rows += kSide) {
    const __m256 low = _mm256_loadu_ps(rows), high = _mm256_loadu_ps(rows + 8);
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) {
      const __m256 weight = _mm256_broadcast_ss(factors + i * per_output);
      all[i][0] = _mm256_fmadd_ps(weight, low, all[i][0]);
      all[i][1] = _mm256_fmadd_ps(weight, high, all[i][1]);
    }
  }
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    VLM_UNROLL
    for (int half = 0; half < kRegisters; ++half) {
      _mm256_storeu_ps(sums + i * kSide + half * 8, all[i][half]);
    }
  }
}

VLM_AVX2 void multiply_wide_block(const Block& block) {
  for (int64_t tile = 0; tile < block.row_tiles; ++tile) {
    for (int64_t output = 0; output < kSpan; output += kOutputs) {
      multiply_wide(block.weights + output * block.weights_stride, block.weights_stride,
                    block.x + tile * block.steps * kWideTileBytes, block.steps, block.more,
                    block.sums + sums_at(output, tile));
    }
  }
}

// The same of one step in 16-bit numbers; sums of a step have 32 bits.
VLM_AVX2 VLM_INLINE inline void multiply_words(const std::byte* weights, int64_t stride,
                                               const std::byte* x, const float* scales, bool more,
                                               float* sums) {
  __m256i all[kOutputs][kRegisters];
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) all[i][0] = all[i][1] = _mm256_setzero_si256();
  for (int64_t pair = 0; pair < kWordPairs; ++pair, weights += 4, x += 4 * kSide) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x) + 1);
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) {
      int both;
      std::memcpy(&both, weights + i * stride, sizeof both);
      const __m256i weight = _mm256_set1_epi32(both);
      add_to_longs(all[i][0], _mm256_madd_epi16(weight, low));
      add_to_longs(all[i][1], _mm256_madd_epi16(weight, high));
    }
  }
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    VLM_UNROLL
    for (int half = 0; half < kRegisters; ++half) {
      float* sum = sums + i * kSide + half * 8;
      const __m256 before = more ? _mm256_loadu_ps(sum) : _mm256_setzero_ps();
      _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(all[i][half]),
                                            _mm256_loadu_ps(scales + half * 8), before));
    }
  }
}

VLM_AVX2 void multiply_word_block(const Block& block) {
  const std::byte* weights = block.weights;
  const std::byte* x = block.x;
  for (int64_t step = 0; step < block.steps;
       ++step, weights += kWordRowBytes, x += kWordStepBytes) {
    for (int64_t tile = 0; tile < block.row_tiles; ++tile) {
      const auto* scales = reinterpret_cast<const float*>(x + 2 * kWordTileBytes) + tile * kSide;
      for (int64_t output = 0; output < kSpan; output += kOutputs) {
        multiply_words(weights + output * block.weights_stride, block.weights_stride,
                       x + tile * kWordTileBytes, scales, block.more || step > 0,
                       block.sums + sums_at(output, tile));
      }
    }
  }
}

// The same of one group with x in 8 bits: sums of half its products fit 16 bits.
static_assert(PackedShape::kGroup / 2 * 15 * (kMostOfByte + 1) < 1 << 15);
VLM_AVX2 VLM_INLINE inline void multiply_bytes(const std::byte* weights, int64_t stride,
                                               const ByteTile& x, int64_t group, float* sums) {
  __m256i all[kOutputs][kRegisters];
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) all[i][0] = all[i][1] = _mm256_setzero_si256();
  const std::byte* levels = weights + group * PackedShape::kGroup;
  VLM_UNROLL
  for (int64_t quad = 0; quad < kByteQuads; ++quad) {
    const auto* rows = reinterpret_cast<const __m256i*>(x.values[group][quad]);
    const __m256i low = _mm256_loadu_si256(rows), high = _mm256_loadu_si256(rows + 1);
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) {
      int four;
      std::memcpy(&four, levels + i * stride + quad * 4, sizeof four);
      const __m256i weight = _mm256_set1_epi32(four);
      add_to_words(all[i][0], _mm256_maddubs_epi16(weight, low));
      add_to_words(all[i][1], _mm256_maddubs_epi16(weight, high));
    }
  }
  const std::byte* scales = weights + kByteDepth + group * sizeof(float);
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    const __m256 weight = _mm256_broadcast_ss(reinterpret_cast<const float*>(scales + i * stride));
    VLM_UNROLL
    for (int half = 0; half < kRegisters; ++half) {
      const __m256i pairs = _mm256_madd_epi16(all[i][half], _mm256_set1_epi16(1));
      const auto* shifts = reinterpret_cast<const __m256i*>(x.shifts[group]) + half;
      const __m256i sum = _mm256_add_epi32(pairs, _mm256_loadu_si256(shifts));
      const __m256 scale = _mm256_mul_ps(weight, _mm256_loadu_ps(x.scales[group] + half * 8));
      float* to = sums + i * kSide + half * 8;
      _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(to)));
    }
  }
}

VLM_AVX2 void multiply_byte_block(const Block& block) {
  const std::byte* weights = block.weights;
  const auto* x = reinterpret_cast<const ByteTile*>(block.x);
  if (!block.more) std::memset(block.sums, 0, kSums * sizeof *block.sums);
  for (int64_t step = 0; step < block.steps; ++step, weights += kByteRowBytes, x += 2) {
    for (int64_t tile = 0; tile < block.row_tiles; ++tile) {
      for (int64_t output = 0; output < kSpan; output += kOutputs) {
        for (int64_t group = 0; group < kByteGroups; ++group) {
          multiply_bytes(weights + output * block.weights_stride, block.weights_stride, x[tile],
                         group, block.sums + sums_at(output, tile));
        }
      }
    }
  }
}

// Eight outputs of up to eight rows.
VLM_AVX2 void finish_square(const float* sums, const float* scales, const float* biases,
                            int64_t rows, int64_t outputs, int64_t stride, uint16_t* y) {
  __m256i square[8];
  VLM_UNROLL
  for (int64_t i = 0; i < 8; ++i) {
    square[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + i * kSide));
  }
  transpose(square);
  const __m256 scale = _mm256_loadu_ps(scales), bias = _mm256_loadu_ps(biases);
  alignas(32) float results[8][8];
  for (int64_t row = 0; row < rows; ++row) {
    _mm256_store_ps(results[row], _mm256_fmadd_ps(_mm256_castsi256_ps(square[row]), scale, bias));
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < outputs; ++i) narrow(results[row][i], y + row * stride + i);
  }
}

VLM_AVX2 void finish_avx2(const ProductArgs& args, const Factors& factors, int64_t output,
                          int64_t row, int64_t rows, const float* sums) {
  const PackedShape& shape = args.shape;
  const int64_t outputs = std::min(kSpan, shape.outputs - output);
  for (int64_t first = 0; first < rows; first += 8) {
    for (int64_t i = 0; i < outputs; i += 8) {
      finish_square(sums + sums_at(i, first / kSide) + first % kSide,
                    &factors.scales[static_cast<size_t>(i)],
                    &factors.biases[static_cast<size_t>(i)], std::min<int64_t>(8, rows - first),
                    std::min<int64_t>(8, outputs - i), shape.outputs,
                    args.y + (row + first) * shape.outputs + output + i);
    }
  }
}

}  // namespace

const Unit kAvx2Wide = {.layout = kWide, .multiply = multiply_wide_block, .finish = finish_avx2};
const Unit kAvx2Words = {.layout = kWords, .multiply = multiply_word_block, .finish = finish_avx2};
const Unit kAvx2Bytes = {
    .layout = kBytesByGroup, .multiply = multiply_byte_block, .finish = finish_avx2};

}  // namespace vlm::tiles

#endif
