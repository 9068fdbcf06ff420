// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What the methods of matvec_avx512_blocks.h share.

#include "kernels/cpu.h"
#include "kernels/matvec_avx512_blocks.h"

#if defined(__x86_64__)

#include "kernels/avx512.h"

// For functions whose loop meets one row of weights after the other: where a loop of few
// instructions begins decides over a quarter of the rate at which memory is read (Zen 4).
#define VLM_ALIGNED __attribute__((aligned(64)))

namespace vlm::avx512 {

/// Of some rows of x with some outputs at a time.
template <int kRows, int kAtOnce>
using Sums = __m512[kRows][kAtOnce];

/// Of some rows of x that meet one output after the other, whole rows of weights, for each span:
/// read in order, memory comes at its full rate everywhere (Zen 4 gives half of it to four pieces
/// side by side). More rows share what they load of the weights.
template <int kRows>
using SpanSums = __m512[kRowSpans][kRows * kOutputs];

VLM_AVX512 inline __m512 load16(const float* x, int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(first_lanes(count)), x);
}

VLM_AVX512 inline void prefetch(const std::byte* ahead, int64_t lines) {
  for (int64_t line = 0; line < lines; ++line) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead + line * 64), _MM_HINT_T0);
  }
}

/// The sums of each of the four's lanes.
VLM_AVX512 inline __m128 totals(const __m512* four) {
  const __m512 ab =
      _mm512_add_ps(_mm512_unpacklo_ps(four[0], four[1]), _mm512_unpackhi_ps(four[0], four[1]));
  const __m512 cd =
      _mm512_add_ps(_mm512_unpacklo_ps(four[2], four[3]), _mm512_unpackhi_ps(four[2], four[3]));
  const __m512 all =
      _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/// Adds the lanes' sums of `rows` rows. Not inline, since GCC 12 otherwise keeps sums in memory
/// rather than in registers all the while.
VLM_AVX512 __attribute__((noinline)) inline void add_totals(const __m512* sums, int rows,
                                                            float* to) {
  for (int row = 0; row < rows; ++row, sums += kOutputs, to += kOutputs) {
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), totals(sums)));
  }
}

template <int kRows, int kAtOnce>
VLM_AVX512 inline void clear(Sums<kRows, kAtOnce>& sums) {
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    VLM_UNROLL
    for (int i = 0; i < kAtOnce; ++i) sums[row][i] = _mm512_setzero_ps();
  }
}

/// Those of one output.
template <int kRows>
VLM_AVX512 inline void keep(const Sums<kRows, 1>& sums, size_t output, __m512* span) {
  VLM_UNROLL
  for (size_t row = 0; row < kRows; ++row) span[row * kOutputs + output] = sums[row][0];
}

template <int kRows>
VLM_AVX512 inline void add_spans(const SpanSums<kRows>& sums, const Block& block) {
  for (int64_t span = 0; span * kSpan < block.inputs; ++span) {
    add_totals(sums[span], kRows, block.sums);
  }
}

/// Sends for bytes that are about to be met, all at once: several rows of x take longer for a line
/// of weights than processors look ahead for.
VLM_AVX512 inline void ask_at_once(const std::byte* from, int64_t bytes) {
  // In assembly, since GCC drops calls that do nothing but ask.
  for (int64_t i = 0; i < bytes; i += 64) asm volatile("prefetcht0 %0" : : "m"(from[i]));
}

/// 32 inputs as whole numbers.
VLM_AVX512 inline __m512i rounded(const float* x, int64_t count, float inverse) {
  const __m512 factor = _mm512_set1_ps(inverse);
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(load16(x, count), factor));
  const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(load16(x + 16, count - 16), factor));
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(low)),
                            _mm512_cvtepi32_epi16(high), 1);
}

}  // namespace vlm::avx512

#endif
