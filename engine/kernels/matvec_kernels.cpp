// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_kernels.h"

#include <algorithm>
#include <cstring>

#include "kernels/bfloat16.h"
#include "kernels/cpu.h"
#include "kernels/group_scale.h"

#if defined(__x86_64__)
#include "kernels/avx2.h"
#endif

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;

template <typename T>
const T* row_of(const MatVecTask& task, int64_t output) {
  return reinterpret_cast<const T*>(task.weights + output * task.shape.row_bytes());
}

float int8_scale(const MatVecTask& task, const int8_t* row) {
  float scale;
  std::memcpy(&scale, row + task.shape.padded_inputs(), sizeof scale);
  return scale;
}

// Plain loops, which compilers turn into what vector instructions they know.

template <int kRows>
void bfloat16_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = row_of<uint16_t>(task, output);
    for (int row = 0; row < kRows; ++row) {
      const float* x = task.inputs[row].wide.data();
      float sum = 0;
      for (int64_t i = 0; i < task.shape.inputs; ++i) {
        sum += widen(w[i]) * x[i / 16 * 16 + i % 2 * 8 + i % 16 / 2];
      }
      task.result(row, output) = sum;
    }
  }
}

template <int kRows>
void int8_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = row_of<int8_t>(task, output);
    for (int row = 0; row < kRows; ++row) {
      const int16_t* x = task.inputs[row].values.data();
      float sum = 0;
      for (int64_t i = 0; i < task.shape.padded_inputs(); i += kGroup) {
        int32_t part = 0;
        for (int64_t k = 0; k < kGroup; ++k) part += int32_t{w[i + k]} * x[i + k];
        sum += static_cast<float>(part);
      }
      task.result(row, output) = sum * int8_scale(task, w) * task.inputs[row].scale;
    }
  }
}

template <int kRows>
void int4_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  const PackedShape shape = task.shape;
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = row_of<uint8_t>(task, output);
    for (int row = 0; row < kRows; ++row) {
      const MatVecInput& input = task.inputs[row];
      float sum = 0;
      for (int64_t first = 0; first < shape.padded_inputs(); first += kGroup) {
        const uint8_t* values = w + shape.value_at(first);
        const int16_t* x = input.values.data() + first;
        int32_t part = 0;
        for (int64_t k = 0; k < 16; ++k) {
          part += (values[k] & 15) * x[k] + (values[k] >> 4) * x[16 + k];
        }
        sum +=
            (static_cast<float>(part) + input.group_shifts[static_cast<size_t>(first / kGroup)]) *
            group_scale(shape, row_of<std::byte>(task, output), first);
      }
      task.result(row, output) = sum * input.scale;
    }
  }
}

#if defined(__x86_64__)

VLM_AVX2 inline float total(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

VLM_AVX2 inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

VLM_AVX2 inline __m128i load_half(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

// Asks for what is read next in time: the processor's own prefetching ends with each page.
VLM_AVX2 inline void prefetch(const void* now) {
  constexpr int64_t kAhead = 2048;
  _mm_prefetch(static_cast<const char*>(now) + kAhead, _MM_HINT_T0);
}

// Where the task's rows begin: as variables of a function's own compilers keep them in registers.
template <int kRows, typename T>
struct RowStarts {
  RowStarts(const MatVecTask& task, std::vector<T> MatVecInput::*values) {
    for (int row = 0; row < kRows; ++row) x[row] = (task.inputs[row].*values).data();
  }
  const T* x[kRows];
};

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
    const auto* w = row_of<uint16_t>(task, output);
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
    const auto* w = row_of<int8_t>(task, output);
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
      task.result(row, output) = total(sums[row]) * int8_scale(task, w) * task.inputs[row].scale;
    }
  }
}

// Eight groups: `scales` and `values` of the weights, which are the row's from input `at` on.
template <int kRows>
VLM_AVX2 VLM_INLINE inline void add_groups(const RowStarts<kRows, int16_t>& rows,
                                           const RowStarts<kRows, float>& shifts,
                                           const std::byte* scales, const std::byte* values,
                                           int64_t at, __m256 (&sums)[kRows][2]) {
  const __m256i low = _mm256_set1_epi16(15);
  const __m256 scale8 = load_halves(reinterpret_cast<const uint16_t*>(scales));
  for (int row = 0; row < kRows; ++row) {
    sums[row][0] =
        _mm256_fmadd_ps(scale8, _mm256_loadu_ps(shifts.x[row] + at / kGroup), sums[row][0]);
  }
  VLM_UNROLL
  for (int k = 0; k < 8; ++k) {
    if (k % 4 == 0) prefetch(values + k * 16);
    const __m256i both = _mm256_cvtepu8_epi16(load_half(values + k * 16));
    const __m256i w_even = _mm256_and_si256(both, low);
    const __m256i w_odd = _mm256_srli_epi16(both, 4);
    const __m256 scale = _mm256_permutevar8x32_ps(scale8, _mm256_set1_epi32(k));
    for (int row = 0; row < kRows; ++row) {
      const int16_t* x = rows.x[row] + at + k * kGroup;
      const __m256i part = _mm256_add_epi32(_mm256_madd_epi16(w_even, load(x)),
                                            _mm256_madd_epi16(w_odd, load(x + 16)));
      __m256& sum = sums[row][k % 2];
      sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(part), scale, sum);
    }
  }
}

template <int kRows>
VLM_AVX2 void int4_avx2(const MatVecTask& task, int64_t begin, int64_t end) {
  const PackedShape shape = task.shape;
  const int64_t padded = shape.padded_inputs();
  const RowStarts<kRows, int16_t> rows(task, &MatVecInput::values);
  const RowStarts<kRows, float> shifts(task, &MatVecInput::group_shifts);
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = row_of<std::byte>(task, output);
    // Two of each row, so that a product does not wait for the one before.
    __m256 sums[kRows][2];
    for (int row = 0; row < kRows; ++row) sums[row][0] = sums[row][1] = _mm256_setzero_ps();
    for (int64_t run = 0; run < padded; run += PackedShape::kRun) {
      const int64_t last = std::min(padded, run + PackedShape::kRun);
      const std::byte* scales = w + shape.scale_at(run);
      const std::byte* values = w + shape.value_at(run);
      for (int64_t at = run; at < last; at += 8 * kGroup) {
        add_groups<kRows>(rows, shifts, scales, values, at, sums);
        scales += 8 * sizeof(uint16_t);
        values += 8 * kGroup / 2;
      }
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) =
          total(_mm256_add_ps(sums[row][0], sums[row][1])) * task.inputs[row].scale;
    }
  }
}

constexpr MatVecKernels kAvx2 = {
    {bfloat16_avx2<1>, bfloat16_avx2<2>, bfloat16_avx2<3>, bfloat16_avx2<4>},
    {int8_avx2<1>, int8_avx2<2>, int8_avx2<3>, int8_avx2<4>},
    {int4_avx2<1>, int4_avx2<2>, int4_avx2<3>, int4_avx2<4>}};

#endif

constexpr MatVecKernels kPortable = {
    {bfloat16_portable<1>, bfloat16_portable<2>, bfloat16_portable<3>, bfloat16_portable<4>},
    {int8_portable<1>, int8_portable<2>, int8_portable<3>, int8_portable<4>},
    {int4_portable<1>, int4_portable<2>, int4_portable<3>, int4_portable<4>}};

}  // namespace

const MatVecKernels& portable_matvec_kernels() {
  return kPortable;
}

#if defined(__x86_64__)
const MatVecKernels& avx2_matvec_kernels() {
  return kAvx2;
}
#endif

}  // namespace vlm
