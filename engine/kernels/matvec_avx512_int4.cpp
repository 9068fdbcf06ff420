// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"
#include "kernels/matvec_avx512_blocks.h"

#if defined(__x86_64__)

#include <algorithm>

#include "kernels/avx512.h"
#include "kernels/matvec_avx512_sums.h"
#include "kernels/packed_matrix.h"

namespace vlm::avx512 {
namespace {

// A step of int4 weights: 64 bytes hold 4 groups, a group in 4 lanes of 32 bits, of which each
// holds 8 weights in order.
constexpr int64_t kInt4Step = 128;
constexpr int64_t kRunSteps = PackedShape::kRun / kInt4Step;

// The scales number `first` … `first` + 3 in the lanes of their groups. (A bfloat16 in the upper
// half of 32 bits is the same number as float32.)
VLM_AVX512 inline __m512 spread(__m512i scales, __m512i first) {
  const __m512i lanes = _mm512_set_epi16(3, 0, 3, 0, 3, 0, 3, 0, 2, 0, 2, 0, 2, 0, 2, 0, 1, 0, 1, 0,
                                         1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512i places = _mm512_add_epi16(lanes, first);
  return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, places, scales));
}

// Several rows: weights become 4 vectors of 16-bit numbers: what is the first, second, … of four
// inputs.
struct Int4Weights {
  __m512i of[4];
  __m512 scale;
};

VLM_AVX512 inline Int4Weights unpack(const std::byte* weights, const std::byte* scales) {
  const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
  // 0 … 15 as −8 … 7 in 4 bits.
  const __m512i bits =
      _mm512_xor_si512(load_line(weights), _mm512_set1_epi8(static_cast<char>(0x88)));
  return {{_mm512_srai_epi16(_mm512_slli_epi16(bits, 12), 12),
           _mm512_srai_epi16(_mm512_slli_epi16(bits, 8), 12),
           _mm512_srai_epi16(_mm512_slli_epi16(bits, 4), 12), _mm512_srai_epi16(bits, 12)},
          spread(_mm512_castsi128_si512(four), _mm512_set1_epi16(0))};
}

constexpr int kPair = 2;  // outputs at a time, whose weights fit the registers

template <int kRows>
VLM_AVX512 inline void add_int4(const Block& block, int64_t step, size_t first,
                                Sums<kRows, kPair>& sums) {
  Int4Weights w[kPair];
  const int64_t run = step / kRunSteps, within = step % kRunSteps;
  const int64_t held = std::min(kRunSteps, block.inputs / kInt4Step - run * kRunSteps);
  VLM_UNROLL
  for (size_t i = 0; i < kPair; ++i) {
    const std::byte* scales = block.weights[first + i] + run * PackedShape::kRunBytes;
    w[i] = unpack(scales + held * 8 + within * 64, scales + within * 8);
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
  const int64_t whole = block.inputs / kInt4Step;
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

// One row: x = 256 · high + low, each a byte with a sign, meets the weights as bytes without one.
// What that makes them too large by, 8, is in `start`. The sums are the same whole numbers.
struct Int4Input {
  std::byte low_even[64], low_odd[64], high_even[64], high_odd[64], start[64];
};

VLM_AVX512 inline __m512i multiply_step(const std::byte* weights, const Int4Input& x) {
  const __m512i bits = load_line(weights);
  const __m512i mask = _mm512_set1_epi8(15);
  const __m512i even = _mm512_and_si512(bits, mask);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(bits, 4), mask);
  __m512i low = load_line(x.start), high = _mm512_setzero_si512();
  add_quads(low, even, load_line(x.low_even));
  add_quads(high, even, load_line(x.high_even));
  add_quads(low, odd, load_line(x.low_odd));
  add_quads(high, odd, load_line(x.high_odd));
  return _mm512_add_epi32(low, _mm512_slli_epi32(high, 8));
}

// Up to kRunSteps, with their scales in front. All are unrolled: processors tell from the regular
// steps of each load what to bring next, and the scales between them make one load's irregular.
VLM_AVX512 VLM_INLINE inline void add_run(const std::byte* weights, const Int4Input* x,
                                          int64_t steps, const std::byte* ahead, int64_t lines,
                                          __m512& sum) {
  const __m512i scales = _mm512_maskz_loadu_epi16(first_lanes(steps * 4), weights);
  weights += steps * 8;
  VLM_UNROLL
  for (int64_t step = 0; step < kRunSteps; ++step) {
    if (step == steps) break;
    prefetch(ahead + step * 64, lines);
    const __m512 part = _mm512_cvtepi32_ps(multiply_step(weights + step * 64, x[step]));
    const __m512i first = _mm512_set1_epi16(static_cast<int16_t>(step * 4));
    sum = _mm512_fmadd_ps(part, spread(scales, first), sum);
  }
}

VLM_AVX512 VLM_ALIGNED void multiply_int4_row(const Block& block) {
  SpanSums<1> stored;
  for (size_t output = 0; output < kOutputs; ++output) {
    const std::byte* weights = block.weights[output];
    const int64_t distance = block.ahead[output] - weights;
    const auto* x = reinterpret_cast<const Int4Input*>(block.x);
    for (int64_t span = 0; span * kSpan < block.inputs; ++span) {
      __m512 sum = _mm512_setzero_ps();
      int64_t left = std::min(kSpan, block.inputs - span * kSpan) / kInt4Step;
      for (; left >= kRunSteps; left -= kRunSteps, x += kRunSteps) {
        prefetch(weights + distance, block.ahead_lines);
        add_run(weights, x, kRunSteps, weights + distance + 64, block.ahead_lines, sum);
        weights += PackedShape::kRunBytes;
      }
      if (left > 0) {
        add_run(weights, x, left, weights + distance, block.ahead_lines, sum);
        x += left;
      }
      stored[span][output] = sum;
    }
  }
  add_spans<1>(stored, block);
}

// Of each step the first of every four inputs, then the second of every four, and so on.
VLM_AVX512 void lay_out_int4(const float* x, int64_t count, float inverse, int64_t steps,
                             std::byte* out, int64_t stride) {
  alignas(64) int16_t order[32];
  for (int16_t i = 0; i < 32; ++i) order[i] = static_cast<int16_t>(i % 8 * 4 + i / 8);
  const __m512i by_place = load_line(reinterpret_cast<const std::byte*>(order));
  for (int64_t i = 0; i < steps * kInt4Step; i += kInt4Step, out += stride) {
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

// The sums of every eight of 32 inputs, times −8.
VLM_AVX512 inline __m128i start_of(__m512i x) {
  __m512i sums = _mm512_madd_epi16(x, _mm512_set1_epi16(-8));
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
  sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
  return _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, sums));
}

VLM_AVX512 inline void split(__m512i x, std::byte* low, std::byte* high) {
  const __m512i rounded = _mm512_add_epi32(x, _mm512_set1_epi32(128));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(x));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high),
                   _mm512_cvtepi32_epi8(_mm512_srai_epi32(rounded, 8)));
}

VLM_AVX512 void lay_out_int4_row(const float* x, int64_t count, float inverse, int64_t steps,
                                 std::byte* out, int64_t stride) {
  for (int64_t i = 0; i < steps * kInt4Step; i += kInt4Step, out += stride) {
    auto* to = reinterpret_cast<Int4Input*>(out);
    for (int64_t part = 0; part < 4; ++part) {
      const int64_t at = i + part * 32;
      const __m512i all = rounded(x + at, count - at, inverse);
      split(_mm512_srai_epi32(_mm512_slli_epi32(all, 16), 16), to->low_even + part * 16,
            to->high_even + part * 16);
      split(_mm512_srai_epi32(all, 16), to->low_odd + part * 16, to->high_odd + part * 16);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to->start + part * 16), start_of(all));
    }
  }
}

}  // namespace

const Method kInt4 = {.step = kInt4Step,
                      .step_bytes = 256,
                      .rows_at_once = kPair,
                      .lay_out = lay_out_int4,
                      .multiply = {nullptr, multiply_int4<2>, multiply_int4<3>, multiply_int4<4>,
                                   multiply_int4<5>, multiply_int4<6>}};
const Method kInt4Row = {.step = kInt4Step,
                         .step_bytes = sizeof(Int4Input),
                         .rows_at_once = 1,
                         .lay_out = lay_out_int4_row,
                         .multiply = {multiply_int4_row}};

}  // namespace vlm::avx512

#endif
