// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_avx512_blocks.h"

#include "kernels/cpu.h"

#if defined(__x86_64__)

#include <algorithm>
#include <limits>

#include "kernels/avx512.h"
#include "kernels/matvec_avx512_sums.h"

namespace vlm::avx512 {
namespace {

template <int kRows>
VLM_AVX512 inline void store(const Sums<kRows, kOutputs>& sums, __m512* to) {
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) to[row * kOutputs + i] = sums[row][i];
  }
}

// bfloat16 weights: 32 inputs a step, the last masked.

template <int kRows, int kAtOnce>
VLM_AVX512_BFLOAT16 inline void add_exact(const Block& block, int64_t step, __mmask32 mask,
                                          size_t first, Sums<kRows, kAtOnce>& sums) {
  __m512bh w[kAtOnce];
  VLM_UNROLL
  for (size_t i = 0; i < kAtOnce; ++i) {
    const std::byte* from = block.weights[first + i] + step * 64;
    w[i] = reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(mask, from));
  }
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    const auto x = reinterpret_cast<__m512bh>(load_line(block.x + (step * kRows + row) * 64));
    VLM_UNROLL
    for (int i = 0; i < kAtOnce; ++i) sums[row][i] = _mm512_dpbf16_ps(sums[row][i], w[i], x);
  }
}

template <int kRows>
VLM_AVX512_BFLOAT16 void multiply_exact(const Block& block) {
  Sums<kRows, kOutputs> sums;
  clear<kRows, kOutputs>(sums);
  const int64_t whole = block.inputs / 32;
  for (int64_t quarter = 0; quarter < kQuarters; ++quarter) {
    const std::byte* ahead = block.ahead[static_cast<size_t>(quarter)];
    const int64_t end = whole * (quarter + 1) / kQuarters;
    for (int64_t step = whole * quarter / kQuarters; step < end; ++step) {
      prefetch(ahead, block.ahead_lines);
      ahead += block.ahead_step;
      add_exact<kRows, kOutputs>(block, step, ~0u, 0, sums);
    }
  }
  if (block.inputs % 32 != 0) {
    add_exact<kRows, kOutputs>(block, whole, first_lanes(block.inputs % 32), 0, sums);
  }
  __m512 stored[kRows * kOutputs];
  store<kRows>(sums, stored);
  add_totals(stored, kRows, block.sums);
}

template <int kRows>
VLM_AVX512_BFLOAT16 VLM_ALIGNED void multiply_exact_in_turn(const Block& block) {
  SpanSums<kRows> stored;
  const int64_t whole = block.inputs / 32;
  for (size_t output = 0; output < kOutputs; ++output) {
    const std::byte* ahead = block.ahead[output];
    int64_t step = 0;
    for (int64_t span = 0; span * kSpan < block.inputs; ++span) {
      Sums<kRows, 1> sums;
      clear<kRows, 1>(sums);
      const int64_t end = std::min(whole, (span + 1) * kSpan / 32);
      if constexpr (kRows > 1) ask_at_once(block.weights[output] + step * 64, kSpan * 2);
      for (; step < end; ++step) {
        if constexpr (kRows == 1) {
          prefetch(ahead, block.ahead_lines);
          ahead += block.ahead_step;
        }
        add_exact<kRows, 1>(block, step, ~0u, output, sums);
      }
      if ((span + 1) * kSpan > whole * 32 && block.inputs % 32 != 0) {
        add_exact<kRows, 1>(block, whole, first_lanes(block.inputs % 32), output, sums);
      }
      keep<kRows>(sums, output, stored[span]);
    }
  }
  add_spans<kRows>(stored, block);
}

template <>
VLM_AVX512_BFLOAT16 VLM_ALIGNED void multiply_exact<1>(const Block& block) {
  multiply_exact_in_turn<1>(block);
}

template <int kRows, int kAtOnce>
VLM_AVX512 inline void add_wide(const Block& block, int64_t step, __mmask32 mask, size_t first,
                                Sums<kRows, kAtOnce>& sums) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  const auto* x = reinterpret_cast<const float*>(block.x) + step * kRows * 32;
  VLM_UNROLL
  for (size_t i = 0; i < kAtOnce; ++i) {
    const std::byte* from = block.weights[first + i] + step * 64;
    const __m512i pairs = _mm512_maskz_loadu_epi16(mask, from);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, high));
    VLM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      __m512& sum = sums[row][i];
      sum = _mm512_fmadd_ps(even, _mm512_loadu_ps(x + row * 32), sum);
      sum = _mm512_fmadd_ps(odd, _mm512_loadu_ps(x + row * 32 + 16), sum);
    }
  }
}

template <int kRows>
VLM_AVX512 void multiply_wide(const Block& block) {
  Sums<kRows, kOutputs> sums;
  clear<kRows, kOutputs>(sums);
  const int64_t whole = block.inputs / 32;
  for (int64_t quarter = 0; quarter < kQuarters; ++quarter) {
    const std::byte* ahead = block.ahead[static_cast<size_t>(quarter)];
    const int64_t end = whole * (quarter + 1) / kQuarters;
    for (int64_t step = whole * quarter / kQuarters; step < end; ++step) {
      prefetch(ahead, block.ahead_lines);
      ahead += block.ahead_step;
      add_wide<kRows, kOutputs>(block, step, ~0u, 0, sums);
    }
  }
  if (block.inputs % 32 != 0) {
    add_wide<kRows, kOutputs>(block, whole, first_lanes(block.inputs % 32), 0, sums);
  }
  __m512 stored[kRows * kOutputs];
  store<kRows>(sums, stored);
  add_totals(stored, kRows, block.sums);
}

template <>
VLM_AVX512 VLM_ALIGNED void multiply_wide<1>(const Block& block) {
  SpanSums<1> stored;
  const int64_t whole = block.inputs / 32;
  for (size_t output = 0; output < kOutputs; ++output) {
    const std::byte* ahead = block.ahead[output];
    int64_t step = 0;
    for (int64_t span = 0; span * kSpan < block.inputs; ++span) {
      Sums<1, 1> sum;
      clear<1, 1>(sum);
      const int64_t end = std::min(whole, (span + 1) * kSpan / 32);
      for (; step < end; ++step) {
        prefetch(ahead, block.ahead_lines);
        ahead += block.ahead_step;
        add_wide<1, 1>(block, step, ~0u, output, sum);
      }
      if ((span + 1) * kSpan > whole * 32 && block.inputs % 32 != 0) {
        add_wide<1, 1>(block, whole, first_lanes(block.inputs % 32), output, sum);
      }
      stored[span][output] = sum[0][0];
    }
  }
  add_spans<1>(stored, block);
}

// Whole numbers: sums of a span's products, 14 + 7 bits each, fit 32 bits in every lane.

VLM_AVX512 __attribute__((noinline)) void to_float(__m512* sums, int count) {
  for (int i = 0; i < count; ++i) sums[i] = _mm512_cvtepi32_ps(_mm512_castps_si512(sums[i]));
}

template <int kRows>
VLM_AVX512 inline void add_int8(const Block& block, int64_t step, Sums<kRows, kOutputs>& sums) {
  __m512i w[kOutputs];
  VLM_UNROLL
  for (int output = 0; output < kOutputs; ++output) {
    const std::byte* from = block.weights[static_cast<size_t>(output)] + step * 32;
    w[output] = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    const __m512i x = load_line(block.x + (step * kRows + row) * 64);
    VLM_UNROLL
    for (int output = 0; output < kOutputs; ++output) {
      const __m512i sum = _mm512_castps_si512(sums[row][output]);
      sums[row][output] = _mm512_castsi512_ps(_mm512_dpwssd_epi32(sum, w[output], x));
    }
  }
}

template <int kRows>
VLM_AVX512 void multiply_int8(const Block& block) {
  Sums<kRows, kOutputs> sums;  // whole numbers, until they are complete
  clear<kRows, kOutputs>(sums);
  const int64_t whole = block.inputs / 32;
  for (int64_t quarter = 0; quarter < kQuarters; ++quarter) {
    const std::byte* ahead = block.ahead[static_cast<size_t>(quarter)];
    const int64_t end = whole * (quarter + 1) / kQuarters;
    for (int64_t step = whole * quarter / kQuarters; step < end; ++step) {
      prefetch(ahead, block.ahead_lines);
      ahead += block.ahead_step;
      add_int8<kRows>(block, step, sums);
    }
  }
  __m512 stored[kRows * kOutputs];
  store<kRows>(sums, stored);
  to_float(stored, kRows * kOutputs);
  add_totals(stored, kRows, block.sums);
}

VLM_AVX512 inline void add_words(const std::byte* weights, const std::byte* x, __m512i& sum) {
  const auto* from = reinterpret_cast<const __m256i*>(weights);
  add_pairs(sum, _mm512_cvtepi8_epi16(_mm256_loadu_si256(from)), load_line(x));
}

// The same sums; two of each output's, as whole numbers may be added in any order.
template <>
VLM_AVX512 VLM_ALIGNED void multiply_int8<1>(const Block& block) {
  SpanSums<1> stored;
  for (size_t output = 0; output < kOutputs; ++output) {
    const std::byte* weights = block.weights[output];
    const std::byte* ahead = block.ahead[output];
    const std::byte* x = block.x;
    for (int64_t span = 0; span * kSpan < block.inputs; ++span) {
      __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
      const int64_t steps = std::min(kSpan, block.inputs - span * kSpan) / 32;
      for (int64_t pair = 0; pair < steps / 2; ++pair, weights += 64, x += 128) {
        prefetch(ahead, block.ahead_lines);
        ahead += 2 * block.ahead_step;
        add_words(weights, x, even);
        add_words(weights + 32, x + 64, odd);
      }
      if (steps % 2 != 0) add_words(weights, x, even);
      stored[span][output] = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
    }
    // The last line, which a scale may share.
    prefetch(ahead, block.ahead_lines);
  }
  add_spans<1>(stored, block);
}

VLM_AVX512 void lay_out_exact(const float* x, int64_t count, float, int64_t steps, std::byte* out,
                              int64_t stride) {
  for (int64_t i = 0; i < steps * 32; i += 32, out += stride) {
    for (int64_t half = 0; half < 2; ++half) {
      const __m512i wide = _mm512_castps_si512(load16(x + i + half * 16, count - i - half * 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + half,
                          _mm512_cvtepi32_epi16(_mm512_srli_epi32(wide, 16)));
    }
  }
}

// Of each step the even ones, then the odd ones.
VLM_AVX512 void lay_out_wide(const float* x, int64_t count, float, int64_t steps, std::byte* out,
                             int64_t stride) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (int64_t i = 0; i < steps * 32; i += 32, out += stride) {
    const __m512 low = load16(x + i, count - i), high = load16(x + i + 16, count - i - 16);
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(low, even, high));
    _mm512_storeu_ps(out + 64, _mm512_permutex2var_ps(low, odd, high));
  }
}

VLM_AVX512 void lay_out_int8(const float* x, int64_t count, float inverse, int64_t steps,
                             std::byte* out, int64_t stride) {
  for (int64_t i = 0; i < steps * 32; i += 32, out += stride) {
    _mm512_storeu_si512(out, rounded(x + i, count - i, inverse));
  }
}

}  // namespace

const Method kExactBFloat16 = {
    .step = 32,
    .step_bytes = 64,
    .rows_at_once = kOutputs,
    .lay_out = lay_out_exact,
    .multiply = {multiply_exact<1>, multiply_exact<2>, multiply_exact<3>, multiply_exact<4>,
                 multiply_exact<5>, multiply_exact<6>},
    .in_turn = {multiply_exact_in_turn<2>, multiply_exact_in_turn<3>}};
const Method kBFloat16 = {.step = 32,
                          .step_bytes = 128,
                          .rows_at_once = kOutputs,
                          .lay_out = lay_out_wide,
                          .multiply = {multiply_wide<1>, multiply_wide<2>, multiply_wide<3>,
                                       multiply_wide<4>, multiply_wide<5>, multiply_wide<6>}};
const Method kInt8 = {.step = 32,
                      .step_bytes = 64,
                      .rows_at_once = kOutputs,
                      .lay_out = lay_out_int8,
                      .multiply = {multiply_int8<1>, multiply_int8<2>, multiply_int8<3>,
                                   multiply_int8<4>, multiply_int8<5>, multiply_int8<6>}};
VLM_AVX512 float largest(const float* x, int64_t count) {
  __m512 top = _mm512_setzero_ps();
  __mmask16 odd = 0;
  const __m512 infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < count; i += 16) {
    const __m512 size = _mm512_abs_ps(load16(x + i, count - i));
    odd = static_cast<__mmask16>(odd | _mm512_cmp_ps_mask(size, infinity, _CMP_NLT_UQ));
    top = _mm512_max_ps(top, size);
  }
  return odd != 0 ? std::numeric_limits<float>::quiet_NaN() : _mm512_reduce_max_ps(top);
}

VLM_AVX512 bool fits_bfloat16(const float* x, int64_t count) {
  __m512i bits = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    bits = _mm512_or_si512(bits, _mm512_castps_si512(load16(x + i, count - i)));
  }
  return _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0xFFFF)) == 0;
}

}  // namespace vlm::avx512

#endif
