// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_avx2.h"

#if defined(__x86_64__)

#include <algorithm>

#include "kernels/group_scale.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;

// 16 weights from `from` times the inputs from number `at` on.
template <int kRows>
VLM_AVX2 VLM_INLINE inline void add16(const RowStarts<kRows, float>& rows, const uint16_t* from,
                                      int64_t at, __m256* even, __m256* odd) {
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
  const __m256i pairs = load(from);
  const __m256 w_even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  const __m256 w_odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
  for (int row = 0; row < kRows; ++row) {
    const float* x = rows.x[row] + at;
    even[row] = _mm256_fmadd_ps(w_even, _mm256_loadu_ps(x), even[row]);
    odd[row] = _mm256_fmadd_ps(w_odd, _mm256_loadu_ps(x + 8), odd[row]);
  }
}

template <int kRows>
VLM_AVX2 void bfloat16_avx2(const MatVecTask& task, int64_t begin, int64_t end) {
  const int64_t inputs = task.shape.inputs;
  const int64_t whole = inputs / 16 * 16;
  const RowStarts<kRows, float> rows(task, &MatVecInput::wide);
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<uint16_t>(output);
    __m256 even[kRows], odd[kRows];
    for (int row = 0; row < kRows; ++row) even[row] = odd[row] = _mm256_setzero_ps();
    for (int64_t i = 0; i < whole; i += 16) {
      prefetch(w + i);
      add16<kRows>(rows, w + i, i, even, odd);
    }
    if (whole < inputs) {
      uint16_t tail[16] = {};
      std::copy(w + whole, w + inputs, tail);
      add16<kRows>(rows, tail, whole, even, odd);
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) = total(_mm256_add_ps(even[row], odd[row]));
    }
  }
}

template <int kRows>
VLM_AVX2 void int8_avx2(const MatVecTask& task, int64_t begin, int64_t end) {
  // 2 products of 14 + 7 bits a step and lane: so many steps fit 31 bits with room to spare.
  constexpr int64_t kSpan = 128 * kGroup;
  const int64_t padded = task.shape.padded_inputs();
  const RowStarts<kRows, int16_t> rows(task, &MatVecInput::values);
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<int8_t>(output);
    __m256 sums[kRows];
    for (int row = 0; row < kRows; ++row) sums[row] = _mm256_setzero_ps();
    for (int64_t first = 0; first < padded; first += kSpan) {
      const int64_t last = std::min(padded, first + kSpan);
      __m256i parts[kRows];
      for (int row = 0; row < kRows; ++row) parts[row] = _mm256_setzero_si256();
      for (int64_t i = first; i < last; i += kGroup) {
        prefetch(w + i);
        const __m256i w0 = _mm256_cvtepi8_epi16(load_half(w + i));
        const __m256i w1 = _mm256_cvtepi8_epi16(load_half(w + i + 16));
        for (int row = 0; row < kRows; ++row) {
          const int16_t* x = rows.x[row] + i;
          const __m256i both =
              _mm256_add_epi32(_mm256_madd_epi16(w0, load(x)), _mm256_madd_epi16(w1, load(x + 16)));
          parts[row] = _mm256_add_epi32(parts[row], both);
        }
      }
      for (int row = 0; row < kRows; ++row) {
        sums[row] = _mm256_add_ps(sums[row], _mm256_cvtepi32_ps(parts[row]));
      }
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) =
          total(sums[row]) * int8_scale(task.shape, task.row(output)) * task.inputs[row].scale;
    }
  }
}

}  // namespace

const MatVecKernels& avx2_matvec_kernels() {
  static const MatVecKernels kernels = {
      {bfloat16_avx2<1>, bfloat16_avx2<2>, bfloat16_avx2<3>, bfloat16_avx2<4>},
      {int8_avx2<1>, int8_avx2<2>, int8_avx2<3>, int8_avx2<4>},
      kInt4WordsOfAvx2,
      kInt4BytesOfAvx2,
      lay_out_bytes_avx2};
  return kernels;
}

}  // namespace vlm

#endif
