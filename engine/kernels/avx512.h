// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// For sources that are written in AVX-512's intrinsics, on x86-64 alone.

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 finds fault with the operands that its own intrinsics leave undefined on purpose.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu.h"

namespace vlm {

/// The first `count` of 16 or 32 lanes; all or none beyond either end.
inline uint32_t first_lanes(int64_t count) {
  return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1;
}

VLM_AVX512 inline __m512i load_line(const std::byte* from) {
  return _mm512_loadu_si512(from);
}

/// Four bytes in every lane of 32 bits.
VLM_AVX512 inline __m512i repeat_word(const std::byte* from) {
  int word;
  std::memcpy(&word, from, sizeof word);
  return _mm512_set1_epi32(word);
}

// In assembly, since GCC 12 copies whole-number sums back and forth around the intrinsics.

/// Adds sums of four products each, of bytes without a sign and bytes with one.
VLM_AVX512 VLM_INLINE inline void add_quads(__m512i& sums, __m512i bytes, __m512i with_sign) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(bytes), "v"(with_sign));
}

/// Adds sums of two products each, of 16-bit numbers.
VLM_AVX512 VLM_INLINE inline void add_pairs(__m512i& sums, __m512i a, __m512i b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
}

/// 16 × 16 numbers of 32 bits: rows become columns.
VLM_AVX512 VLM_INLINE inline void transpose(__m512i* rows) {
  constexpr int64_t kSide = 16;
  __m512i half[kSide];
  VLM_UNROLL
  for (int64_t i = 0; i < kSide; i += 2) {
    half[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    half[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  VLM_UNROLL
  for (int64_t i = 0; i < kSide; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(half[i], half[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(half[i], half[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(half[i + 1], half[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(half[i + 1], half[i + 3]);
  }
  VLM_UNROLL
  for (int64_t i = 0; i < 4; ++i) {
    const __m512i low = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    const __m512i high = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xDD);
    const __m512i more_low = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    const __m512i more_high = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xDD);
    half[i] = _mm512_shuffle_i32x4(low, more_low, 0x88);
    half[i + 8] = _mm512_shuffle_i32x4(low, more_low, 0xDD);
    half[i + 4] = _mm512_shuffle_i32x4(high, more_high, 0x88);
    half[i + 12] = _mm512_shuffle_i32x4(high, more_high, 0xDD);
  }
  VLM_UNROLL
  for (int64_t i = 0; i < kSide; ++i) rows[i] = half[i];
}

}  // namespace vlm

#endif
