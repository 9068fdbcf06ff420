// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_avx512_blocks.h"

#include "kernels/cpu.h"

#if defined(__x86_64__)

#include <algorithm>
#include <limits>

#include "kernels/avx512.h"

namespace vlm::avx512 {
namespace {

// Of some rows of x with some outputs at a time.
template <int kRows, int kAtOnce>
using Sums = __m512[kRows][kAtOnce];

// Of one row of x, for each span. It meets one output after the other, whole rows of weights: read
// in order, memory comes at its full rate everywhere (Zen 4 gives half of it to four pieces side by
// side). More rows are bound by computing, and share what they load.
using RowSums = __m512[kRowSpans][kOutputs];

VLM_AVX512 inline __m512 load16(const float* x, int64_t count) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(first_lanes(count)), x);
}

VLM_AVX512 inline void prefetch(const std::byte* ahead, int64_t lines) {
  for (int64_t line = 0; line < lines; ++line) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead + line * 64), _MM_HINT_T0);
  }
}

// The sums of each of the four's lanes.
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

// Not inline, since GCC 12 otherwise keeps sums in memory rather than in registers all the while.
VLM_AVX512 __attribute__((noinline)) void add_totals(const __m512* sums, int rows, float* to) {
  for (int row = 0; row < rows; ++row, sums += kOutputs, to += kOutputs) {
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), totals(sums)));
  }
}

VLM_AVX512 __attribute__((noinline)) void to_float(__m512* sums, int count) {
  for (int i = 0; i < count; ++i) sums[i] = _mm512_cvtepi32_ps(_mm512_castps_si512(sums[i]));
}

template <int kRows, int kAtOnce>
VLM_AVX512 inline void clear(Sums<kRows, kAtOnce>& sums) {
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    VLM_UNROLL
    for (int i = 0; i < kAtOnce; ++i) sums[row][i] = _mm512_setzero_ps();
  }
}

template <int kRows>
VLM_AVX512 inline void store(const Sums<kRows, kOutputs>& sums, __m512* to) {
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    VLM_UNROLL
    for (int i = 0; i < kOutputs; ++i) to[row * kOutputs + i] = sums[row][i];
  }
}

VLM_AVX512 inline void add_spans(const RowSums& sums, const Block& block) {
  for (int64_t span = 0; span * kSpan < block.inputs; ++span) {
    add_totals(sums[span], 1, block.sums);
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

template <>
VLM_AVX512_BFLOAT16 void multiply_exact<1>(const Block& block) {
  RowSums stored;
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
        add_exact<1, 1>(block, step, ~0u, output, sum);
      }
      if ((span + 1) * kSpan > whole * 32 && block.inputs % 32 != 0) {
        add_exact<1, 1>(block, whole, first_lanes(block.inputs % 32), output, sum);
      }
      stored[span][output] = sum[0][0];
    }
  }
  add_spans(stored, block);
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
VLM_AVX512 void multiply_wide<1>(const Block& block) {
  RowSums stored;
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
  add_spans(stored, block);
}

// Whole numbers: sums of a span's products, 14 + 7 bits each, fit 32 bits in every lane.

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
VLM_AVX512 void multiply_int8<1>(const Block& block) {
  RowSums stored;
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
  add_spans(stored, block);
}

// 64 bytes hold 4 groups, a group in 4 lanes of 32 bits, of which each holds 8 weights in order.
// They become 4 vectors of 16-bit numbers: what is the first, second, … of four inputs.
struct Int4Weights {
  __m512i of[4];
  __m512 scale;
};

VLM_AVX512 inline Int4Weights unpack(const std::byte* weights, const std::byte* scales) {
  // A bfloat16 in the upper half of 32 bits is the same number as float32.
  const __m512i spread = _mm512_set_epi16(3, 0, 3, 0, 3, 0, 3, 0, 2, 0, 2, 0, 2, 0, 2, 0, 1, 0, 1,
                                          0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
  const __m512i scale =
      _mm512_maskz_permutexvar_epi16(0xAAAAAAAA, spread, _mm512_castsi128_si512(four));
  // 0 … 15 as −8 … 7 in 4 bits.
  const __m512i bits =
      _mm512_xor_si512(load_line(weights), _mm512_set1_epi8(static_cast<char>(0x88)));
  return {{_mm512_srai_epi16(_mm512_slli_epi16(bits, 12), 12),
           _mm512_srai_epi16(_mm512_slli_epi16(bits, 8), 12),
           _mm512_srai_epi16(_mm512_slli_epi16(bits, 4), 12), _mm512_srai_epi16(bits, 12)},
          _mm512_castsi512_ps(scale)};
}

constexpr int kPair = 2;  // outputs at a time, whose weights fit the registers

template <int kRows>
VLM_AVX512 inline void add_int4(const Block& block, int64_t step, size_t first,
                                Sums<kRows, kPair>& sums) {
  Int4Weights w[kPair];
  VLM_UNROLL
  for (size_t i = 0; i < kPair; ++i) {
    w[i] = unpack(block.weights[first + i] + step * 64, block.scales[first + i] + step * 8);
  }
  const std::byte* x = block.x + step * kRows * 256;
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row, x += 256) {
    __m512i parts[kPair];
    const __m512i x0 = load_line(x);
    VLM_UNROLL
    for (int i = 0; i < kPair; ++i) parts[i] = _mm512_madd_epi16(w[i].of[0], x0);
    VLM_UNROLL
    for (int k = 1; k < 4; ++k) {
      const __m512i xk = load_line(x + k * 64);
      VLM_UNROLL
      for (int i = 0; i < kPair; ++i) add_pairs(parts[i], w[i].of[k], xk);
    }
    VLM_UNROLL
    for (int i = 0; i < kPair; ++i) {
      sums[row][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(parts[i]), w[i].scale, sums[row][i]);
    }
  }
}

template <int kRows>
VLM_AVX512 void multiply_int4(const Block& block) {
  __m512 stored[kRows * kOutputs];
  const int64_t whole = block.inputs / 128;
  for (size_t first = 0; first < kOutputs; first += kPair) {
    Sums<kRows, kPair> sums;
    clear<kRows, kPair>(sums);
    for (size_t i = 0; i < kPair; ++i) {
      const std::byte* ahead = block.ahead[first + i];
      const int64_t end = whole * (static_cast<int64_t>(i) + 1) / kPair;
      for (int64_t step = whole * static_cast<int64_t>(i) / kPair; step < end; ++step) {
        prefetch(ahead, block.ahead_lines);
        ahead += block.ahead_step;
        add_int4<kRows>(block, step, first, sums);
      }
    }
    VLM_UNROLL
    for (size_t row = 0; row < kRows; ++row) {
      VLM_UNROLL
      for (size_t i = 0; i < kPair; ++i) stored[row * kOutputs + first + i] = sums[row][i];
    }
  }
  add_totals(stored, kRows, block.sums);
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

// 32 inputs as whole numbers.
VLM_AVX512 inline __m512i rounded(const float* x, int64_t count, float inverse) {
  const __m512 factor = _mm512_set1_ps(inverse);
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(load16(x, count), factor));
  const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(load16(x + 16, count - 16), factor));
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(low)),
                            _mm512_cvtepi32_epi16(high), 1);
}

VLM_AVX512 void lay_out_int8(const float* x, int64_t count, float inverse, int64_t steps,
                             std::byte* out, int64_t stride) {
  for (int64_t i = 0; i < steps * 32; i += 32, out += stride) {
    _mm512_storeu_si512(out, rounded(x + i, count - i, inverse));
  }
}

// Of each step the first of every four inputs, then the second of every four, and so on.
VLM_AVX512 void lay_out_int4(const float* x, int64_t count, float inverse, int64_t steps,
                             std::byte* out, int64_t stride) {
  alignas(64) int16_t order[32];
  for (int16_t i = 0; i < 32; ++i) order[i] = static_cast<int16_t>(i % 8 * 4 + i / 8);
  const __m512i by_place = load_line(reinterpret_cast<const std::byte*>(order));
  for (int64_t i = 0; i < steps * 128; i += 128, out += stride) {
    for (int64_t part = 0; part < 4; ++part) {
      const int64_t at = i + part * 32;
      const __m512i sorted =
          _mm512_permutexvar_epi16(by_place, rounded(x + at, count - at, inverse));
      auto* to = reinterpret_cast<__m128i*>(out + part * 16);
      _mm_storeu_si128(to, _mm512_castsi512_si128(sorted));
      _mm_storeu_si128(to + 4, _mm512_extracti32x4_epi32(sorted, 1));
      _mm_storeu_si128(to + 8, _mm512_extracti32x4_epi32(sorted, 2));
      _mm_storeu_si128(to + 12, _mm512_extracti32x4_epi32(sorted, 3));
    }
  }
}

}  // namespace

const Method kExactBFloat16 = {
    .step = 32,
    .x_bytes = 2,
    .row_at_once = 1,
    .rows_at_once = kOutputs,
    .lay_out = lay_out_exact,
    .multiply = {multiply_exact<1>, multiply_exact<2>, multiply_exact<3>, multiply_exact<4>,
                 multiply_exact<5>, multiply_exact<6>}};
const Method kBFloat16 = {.step = 32,
                          .x_bytes = 4,
                          .row_at_once = 1,
                          .rows_at_once = kOutputs,
                          .lay_out = lay_out_wide,
                          .multiply = {multiply_wide<1>, multiply_wide<2>, multiply_wide<3>,
                                       multiply_wide<4>, multiply_wide<5>, multiply_wide<6>}};
const Method kInt8 = {.step = 32,
                      .x_bytes = 2,
                      .row_at_once = 1,
                      .rows_at_once = kOutputs,
                      .lay_out = lay_out_int8,
                      .multiply = {multiply_int8<1>, multiply_int8<2>, multiply_int8<3>,
                                   multiply_int8<4>, multiply_int8<5>, multiply_int8<6>}};
const Method kInt4 = {.step = 128,
                      .x_bytes = 2,
                      .row_at_once = kPair,
                      .rows_at_once = kPair,
                      .lay_out = lay_out_int4,
                      .multiply = {multiply_int4<1>, multiply_int4<2>, multiply_int4<3>,
                                   multiply_int4<4>, multiply_int4<5>, multiply_int4<6>}};

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
