// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"
#include "kernels/product_tiles.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/avx512.h"
#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"

// Products in 8 bits. A step is 128 inputs: those of one row of x share a scale, so that a large
// value spoils no more than these. The instruction multiplies bytes without a sign by bytes with
// one, so x is 128 too large, and sums begin at −128 times the sum of the step's weights.

namespace vlm::tiles {
namespace {

constexpr int64_t kStepInputs = 128;
constexpr int64_t kQuads = kStepInputs / 4;
constexpr int64_t kValueBytes = kQuads * kSide * 4;  // of x, of one tile of rows
constexpr int64_t kScaleBytes = kSide * 4;
constexpr int64_t kByteStep = 2 * (kValueBytes + kScaleBytes);
constexpr int64_t kByteRow = kStepInputs + 4;  // the step's values, then where its sum begins
constexpr int kAtOnce = 16;                    // sums in registers, of outputs times tiles of rows
// Sent for while weights are laid out: what was sent for during the products before is gone again
// from caches of a common size.
constexpr int64_t kFetchedAhead = 4096;

// kAtOnce / kRowTiles of a step's outputs from `weights` on. `x`: both tiles' values, then their
// scales.
template <int kRowTiles>
VLM_AVX512 VLM_INLINE inline void multiply_outputs(const std::byte* weights, int64_t stride,
                                                   const std::byte* x, bool more, float* sums) {
  constexpr int kOutputs = kAtOnce / kRowTiles;
  __m512i all[kOutputs][kRowTiles];
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    const __m512i start = repeat_word(weights + i * stride + kStepInputs);
    VLM_UNROLL
    for (int tile = 0; tile < kRowTiles; ++tile) all[i][tile] = start;
  }
  for (int64_t quad = 0; quad < kQuads; ++quad) {
    __m512i both[kRowTiles];
    VLM_UNROLL
    for (int tile = 0; tile < kRowTiles; ++tile)
      both[tile] = load_line(x + tile * kValueBytes + quad * 64);
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) {
      const __m512i weight = repeat_word(weights + i * stride + quad * 4);
      VLM_UNROLL
      for (int tile = 0; tile < kRowTiles; ++tile) {
        add_quads(all[i][tile], both[tile], weight);
      }
    }
  }
  VLM_UNROLL
  for (int tile = 0; tile < kRowTiles; ++tile) {
    const __m512 scale =
        _mm512_loadu_ps(reinterpret_cast<const float*>(x + 2 * kValueBytes) + tile * kSide);
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) {
      float* sum = sums + tile * kSide * kSide + i * kSide;
      const __m512 before = more ? _mm512_loadu_ps(sum) : _mm512_setzero_ps();
      _mm512_storeu_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(all[i][tile]), scale, before));
    }
  }
}

template <int kRowTiles>
VLM_AVX512 void multiply_steps(const Block& block) {
  const std::byte* weights = block.weights;
  const std::byte* x = block.x;
  for (int64_t step = 0; step < block.steps; ++step, weights += kByteRow, x += kByteStep) {
    for (int64_t output = 0; output < kSpan; output += kAtOnce / kRowTiles) {
      multiply_outputs<kRowTiles>(weights + output * block.weights_stride, block.weights_stride, x,
                                  block.more || step > 0, block.sums + sums_at(output, 0));
    }
  }
}

void multiply(const Block& block) {
  if (block.row_tiles > 1) {
    multiply_steps<2>(block);
  } else {
    multiply_steps<1>(block);
  }
}

// Of 32 bfloat16 numbers without a sign.
VLM_AVX512 inline float largest_of(__m512i halves) {
  const __m512i odd = _mm512_srli_epi32(halves, 16);
  const __m512i even = _mm512_and_si512(halves, _mm512_set1_epi32(0xFFFF));
  return widen(static_cast<uint16_t>(_mm512_reduce_max_epu32(_mm512_max_epu32(odd, even))));
}

// A step of one row of x as bytes, 128 too large, and what they have to be multiplied by.
VLM_AVX512 float round_row(const uint16_t* from, int64_t count, std::byte* out) {
  __m512i halves[kStepInputs / 32];
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < kStepInputs / 32; ++i) {
    halves[i] = _mm512_maskz_loadu_epi16(first_lanes(count - i * 32), from + i * 32);
    // As whole numbers, so that what is not a number is the largest.
    most = _mm512_max_epu16(most, _mm512_and_si512(halves[i], _mm512_set1_epi16(0x7FFF)));
  }
  const float largest = largest_of(most);
  // Infinity has no scale: its row is no number.
  const float scale = largest < 1e-36F ? 0
                      : largest > std::numeric_limits<float>::max()
                          ? std::numeric_limits<float>::quiet_NaN()
                          : largest / kMostOfByte;
  const __m512 by = _mm512_set1_ps(scale == 0 ? 0 : kMostOfByte / largest);
  for (int64_t i = 0; i < kStepInputs / 16; ++i) {
    const __m256i half = _mm512_extracti64x4_epi64(halves[i / 2], 0);
    const __m256i other = _mm512_extracti64x4_epi64(halves[i / 2], 1);
    const __m512 wide = _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(i % 2 == 0 ? half : other), 16));
    const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(wide, by)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * 16),
                     _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(0x80))));
  }
  return scale;
}

VLM_AVX512 void lay_out_rows(const ProductArgs& args, int64_t first, int64_t count, int64_t begin,
                             int64_t steps, std::byte* out) {
  const int64_t inputs = args.shape.inputs;
  alignas(64) std::byte rows[kSide][kStepInputs];
  for (int64_t step = 0; step < steps; ++step, out += kByteStep) {
    const int64_t at = begin + step * kStepInputs;
    for (int64_t tile = 0; tile * kSide < count; ++tile) {
      auto* scales = reinterpret_cast<float*>(out + 2 * kValueBytes) + tile * kSide;
      for (int64_t i = 0; i < kSide; ++i) {
        const int64_t row = tile * kSide + i;
        scales[i] =
            row < count ? round_row(args.x + (first + row) * inputs + at, inputs - at, rows[i]) : 0;
        if (row >= count) std::memset(rows[i], 0, kStepInputs);
      }
      for (int64_t half = 0; half < kStepInputs / 64; ++half) {
        __m512i quads[kSide];
        VLM_UNROLL
        for (int64_t i = 0; i < kSide; ++i) quads[i] = load_line(rows[i] + half * 64);
        transpose(quads);
        std::byte* to = out + tile * kValueBytes + half * 16 * 64;
        VLM_UNROLL
        for (int64_t i = 0; i < kSide; ++i) _mm512_storeu_si512(to + i * 64, quads[i]);
      }
    }
  }
}

// int4: the largest of a row's scales stands for −8 and becomes −127.
VLM_AVX512 float row_scale(const PackedShape& shape, const std::byte* row) {
  if (shape.format == PackedFormat::kInt8) return weight_scale(shape, row);
  __m512i most = _mm512_setzero_si512();
  for (int64_t at = 0; at < shape.padded_inputs(); at += PackedShape::kRun) {
    const uint32_t groups = first_lanes((shape.padded_inputs() - at) / PackedShape::kGroup);
    const __m512i some = _mm512_maskz_loadu_epi16(groups, row + shape.scale_at(at));
    most = _mm512_max_epu16(most, _mm512_and_si512(some, _mm512_set1_epi16(0x7FFF)));
  }
  return largest_of(most) * 8 / kMostOfByte;
}

// A group of 32 weights: its 16 levels become bytes, and the weights are looked up among them.
VLM_AVX512 VLM_INLINE inline __m256i widen_group(const std::byte* values, float scale) {
  const __m512 levels = _mm512_set_ps(7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8);
  const __m128i table =
      _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(levels, _mm512_set1_ps(scale))));
  const __m256i both =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  const __m256i places =
      _mm256_and_si256(_mm256_or_si256(both, _mm256_slli_epi16(both, 4)), _mm256_set1_epi8(0x0F));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), places);
}

// Half of a step's weights, from `at` on in a packed row; zeros beyond its end.
VLM_AVX512 VLM_INLINE inline __m512i take_half(const PackedShape& shape, const std::byte* row,
                                               float inverse, int64_t at) {
  const int64_t left = shape.padded_inputs() - at;
  if (shape.format == PackedFormat::kInt8) {
    return _mm512_maskz_loadu_epi16(first_lanes(left / 2), row + at);
  }
  if (left <= 0) return _mm512_setzero_si512();
  __m256i groups[2];
  for (int64_t i = 0; i < 2; ++i) {
    const int64_t group = at + i * PackedShape::kGroup;
    groups[i] = widen_group(row + shape.value_at(group), group_scale(shape, row, group) * inverse);
  }
  return _mm512_inserti64x4(_mm512_castsi256_si512(groups[0]), groups[1], 1);
}

VLM_AVX512 void lay_out_bytes(const ProductArgs& args, int64_t first, int64_t begin, int64_t steps,
                              std::byte* out, int64_t stride) {
  const PackedShape shape = args.shape;
  const __m512i ones = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < kSpan; ++i, out += stride) {
    if (first + i >= shape.outputs) {
      std::memset(out, 0, static_cast<size_t>(steps * kByteRow));
      continue;
    }
    const std::byte* row = args.weights + (first + i) * shape.row_bytes();
    const float scale = row_scale(shape, row);
    const float inverse = scale == 0 ? 0 : 1 / scale;
    for (int64_t step = 0; step < steps; ++step) {
      std::byte* to = out + step * kByteRow;
      __m512i sums = _mm512_setzero_si512();
      for (int64_t at = 0; at < kStepInputs; at += 64) {
        const int64_t input = begin + step * kStepInputs + at;
        __builtin_prefetch(row +
                           (shape.format == PackedFormat::kInt8 ? input : shape.value_at(input)) +
                           kFetchedAhead);
        const __m512i half = take_half(shape, row, inverse, input);
        _mm512_storeu_si512(to + at, half);
        sums = _mm512_dpbusd_epi32(sums, ones, half);
      }
      const int start = -128 * _mm512_reduce_add_epi32(sums);
      std::memcpy(to + kStepInputs, &start, sizeof start);
    }
  }
}

constexpr Layout kByteLayout = {.depth = kStepInputs,
                                .row_bytes = kByteRow,
                                .step_bytes = kByteStep,
                                .in_place = false,
                                .block_inputs = 2048,
                                .lay_out_x = lay_out_rows,
                                .lay_out_weights = lay_out_bytes,
                                .scale = row_scale};

}  // namespace

const Unit kBytes = {.layout = kByteLayout, .multiply = multiply, .finish = finish_avx512};

}  // namespace vlm::tiles

#endif
