// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// For sources that are written in AVX2's intrinsics, on x86-64 alone.

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/packed_matrix.h"
#include "kernels/row_scale.h"

namespace vlm {

// Sums of whole numbers, added to where they are. Left alone, GCC 12 either finds all that a sum is
// made of first, for which there are no registers, or moves each sum from one register to another.

VLM_AVX2 VLM_INLINE inline void add_to_words(__m256i& sums, __m256i values) {
  asm("vpaddw %1, %0, %0" : "+x"(sums) : "x"(values));
}

VLM_AVX2 VLM_INLINE inline void add_to_longs(__m256i& sums, __m256i values) {
  asm("vpaddd %1, %0, %0" : "+x"(sums) : "x"(values));
}

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

VLM_AVX2 VLM_INLINE inline float total(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

VLM_AVX2 VLM_INLINE inline int32_t total(__m256i lanes) {
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

/// The largest of some numbers without their signs; what is no number is larger than all that are.
template <size_t kCount>
VLM_AVX2 inline float largest_of(const __m256 (&values)[kCount]) {
  const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i most = _mm256_setzero_si256();
  for (size_t i = 0; i < kCount; ++i) {
    most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(values[i]), no_sign));
  }
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  const uint32_t bits = *std::max_element(lanes, lanes + 8);
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
  return largest;
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

/// 32 numbers in 8 bits: value = byte · scale.
struct BytesOfAvx2 {
  __m256i values;  ///< those with even numbers in the low half, those with odd ones in the high one
  float scale;     ///< as RowScale's
  int32_t sum;     ///< of the values
};

VLM_AVX2 inline BytesOfAvx2 round_to_bytes(const __m256 (&numbers)[4]) {
  const RowScale own(largest_of(numbers), kMostOfByte);
  const __m256 by = _mm256_set1_ps(own.inverse);
  __m256i whole[4];
  VLM_UNROLL
  for (int i = 0; i < 4; ++i) whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(numbers[i], by));
  // Packing keeps to halves of registers.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]),
                                            _mm256_packs_epi32(whole[2], whole[3]));
  const __m256i in_order =
      _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  const __m256i even_first =
      _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,  //
                       0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m256i split = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(in_order, even_first), 0xD8);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), split);
  return {split, own.scale, total(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}

}  // namespace vlm

#endif
