// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// For sources that are written in AVX2's intrinsics, on x86-64 alone.

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu.h"

namespace vlm {

/// Eight bfloat16 numbers.
VLM_AVX2 inline __m256 load_halves(const uint16_t* from) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

/// The same of the first `count`, and zeros.
VLM_AVX2 inline __m256 load_halves(const uint16_t* from, int64_t count) {
  if (count >= 8) return load_halves(from);
  uint16_t some[8] = {};
  if (count > 0) std::memcpy(some, from, static_cast<size_t>(count) * sizeof *from);
  return load_halves(some);
}

/// 8 × 8 numbers of 32 bits: rows become columns.
VLM_AVX2 VLM_INLINE inline void transpose(__m256i* rows) {
  __m256i half[8];
  VLM_UNROLL
  for (int i = 0; i < 8; i += 2) {
    half[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
    half[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  VLM_UNROLL
  for (int i = 0; i < 8; i += 4) {
    rows[i] = _mm256_unpacklo_epi64(half[i], half[i + 2]);
    rows[i + 1] = _mm256_unpackhi_epi64(half[i], half[i + 2]);
    rows[i + 2] = _mm256_unpacklo_epi64(half[i + 1], half[i + 3]);
    rows[i + 3] = _mm256_unpackhi_epi64(half[i + 1], half[i + 3]);
  }
  VLM_UNROLL
  for (int i = 0; i < 4; ++i) {
    half[i] = _mm256_permute2x128_si256(rows[i], rows[i + 4], 0x20);
    half[i + 4] = _mm256_permute2x128_si256(rows[i], rows[i + 4], 0x31);
  }
  VLM_UNROLL
  for (int i = 0; i < 8; ++i) rows[i] = half[i];
}

}  // namespace vlm

#endif
