// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What the AVX2 kernels of few rows share, on x86-64 alone.

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>
#include <vector>

#include "kernels/avx2.h"
#include "kernels/matvec_kernels.h"

namespace vlm {

VLM_AVX2 VLM_INLINE inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

VLM_AVX2 VLM_INLINE inline __m128i load_half(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

/// Asks for what is read next in time: the processor's own prefetching ends with each page. (Not
/// inlined by force it would be dropped by GCC 12, as a function without effects.)
VLM_AVX2 VLM_INLINE inline void prefetch(const void* now) {
  constexpr int64_t kAhead = 2048;
  _mm_prefetch(static_cast<const char*>(now) + kAhead, _MM_HINT_T0);
}

/// Where the task's rows begin: as variables of a function's own compilers keep them in registers.
template <int kRows, typename T>
struct RowStarts {
  RowStarts(const MatVecTask& task, std::vector<T> MatVecInput::*values) {
    for (int row = 0; row < kRows; ++row) x[row] = (task.inputs[row].*values).data();
  }
  const T* x[kRows];
};

extern const MatVecKernels::ByRows kInt4WordsOfAvx2, kInt4BytesOfAvx2;
void lay_out_bytes_avx2(const PackedShape& shape, const float* x, MatVecInput& input);

}  // namespace vlm

#endif
