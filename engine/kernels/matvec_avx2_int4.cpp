// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_avx2.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cstddef>

// Weights in 4 bits. A load holds those of two groups, one in either half; their products with x
// are summed in whole numbers, four vectors' at a time by halving until each lane holds one group's
// sum. So a scale costs one instruction for eight groups, and none goes to spread it.

namespace vlm {
namespace {

constexpr int64_t kPairs = kInt4Groups / 2;
constexpr int64_t kPairBytes = PackedShape::kGroup;  // of two groups' weights
constexpr int64_t kPairInputs = 2 * PackedShape::kGroup;

// x in 16 bits: weights of every fourth input are 16-bit numbers.
struct Words {
  using Groups = Int4Words;
  static constexpr auto kLaidOut = &MatVecInput::words;
  struct Weights {
    __m256i steps[4];
  };

  VLM_AVX2 VLM_INLINE static Weights unpack(__m256i packed) {
    const __m256i low = _mm256_set1_epi16(15);
    return {{_mm256_and_si256(packed, low), _mm256_and_si256(_mm256_srli_epi16(packed, 4), low),
             _mm256_and_si256(_mm256_srli_epi16(packed, 8), low), _mm256_srli_epi16(packed, 12)}};
  }
  VLM_AVX2 VLM_INLINE static __m256i multiply(const Weights& w, const int16_t* x) {
    return _mm256_add_epi32(_mm256_add_epi32(_mm256_madd_epi16(w.steps[0], load(x)),
                                             _mm256_madd_epi16(w.steps[1], load(x + 16))),
                            _mm256_add_epi32(_mm256_madd_epi16(w.steps[2], load(x + 32)),
                                             _mm256_madd_epi16(w.steps[3], load(x + 48))));
  }
  VLM_AVX2 VLM_INLINE static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
  VLM_AVX2 VLM_INLINE static __m256i widen(__m256i sums) { return sums; }
  VLM_AVX2 VLM_INLINE static __m256 scaled(__m256 scales, const Int4Words&) { return scales; }
  static float row_scale(const MatVecInput& input) { return input.scale; }
};

// x in 8 bits: weights of every second input are bytes, and sums of half a group fit 16 bits.
static_assert(PackedShape::kGroup / 2 * 15 * (kMostOfByte + 1) < 1 << 15);
struct Bytes {
  using Groups = Int4Bytes;
  static constexpr auto kLaidOut = &MatVecInput::bytes;
  struct Weights {
    __m256i steps[2];
  };

  VLM_AVX2 VLM_INLINE static Weights unpack(__m256i packed) {
    const __m256i low = _mm256_set1_epi8(15);
    return {{_mm256_and_si256(packed, low), _mm256_and_si256(_mm256_srli_epi16(packed, 4), low)}};
  }
  VLM_AVX2 VLM_INLINE static __m256i multiply(const Weights& w, const int8_t* x) {
    return _mm256_add_epi16(_mm256_maddubs_epi16(w.steps[0], load(x)),
                            _mm256_maddubs_epi16(w.steps[1], load(x + 32)));
  }
  VLM_AVX2 VLM_INLINE static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
  VLM_AVX2 VLM_INLINE static __m256i widen(__m256i sums) {
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  }
  VLM_AVX2 VLM_INLINE static __m256 scaled(__m256 scales, const Int4Bytes& x) {
    return _mm256_mul_ps(scales, _mm256_load_ps(x.scales));
  }
  static float row_scale(const MatVecInput&) { return 1; }
};

// Eight scales in the order of group_place().
VLM_AVX2 VLM_INLINE inline __m256 load_scales(const std::byte* from) {
  const __m256i all = _mm256_broadcastsi128_si256(load_half(from));
  const __m256i order =
      _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 4, 5, -1, -1, 8, 9, -1, -1, 12, 13,  //
                       -1, -1, 2, 3, -1, -1, 6, 7, -1, -1, 10, 11, -1, -1, 14, 15);
  return _mm256_castsi256_ps(_mm256_shuffle_epi8(all, order));
}

// Lanes a0 a1 … of two vectors become sums of two, a and b in turn.
template <typename X>
VLM_AVX2 VLM_INLINE inline __m256i fold(__m256i a, __m256i b) {
  return X::add(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

// Eight groups of weights, from `scales` and `values` on, times those of each row.
template <typename X, int kRows>
VLM_AVX2 VLM_INLINE inline void add_groups(const RowStarts<kRows, typename X::Groups>& rows,
                                           int64_t at, const std::byte* scales,
                                           const std::byte* values, __m256 (&sums)[kRows]) {
  __m256i folded[2][kRows];
  VLM_UNROLL
  for (int half = 0; half < 2; ++half) {
    __m256i one[kRows];
    prefetch(values);
    const typename X::Weights first = X::unpack(load(values));
    VLM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      one[row] = X::multiply(first, rows.x[row][at].values + half * 2 * kPairInputs);
    }
    const typename X::Weights second = X::unpack(load(values + kPairBytes));
    VLM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      const auto* x = rows.x[row][at].values + (half * 2 + 1) * kPairInputs;
      folded[half][row] = fold<X>(one[row], X::multiply(second, x));
    }
    values += 2 * kPairBytes;
  }
  const __m256 scale = load_scales(scales);
  VLM_UNROLL
  for (int row = 0; row < kRows; ++row) {
    const typename X::Groups& x = rows.x[row][at];
    const __m256i a = folded[0][row], b = folded[1][row];
    const __m256i sum = X::widen(X::add(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)));
    const __m256i whole = _mm256_add_epi32(sum, load(x.shifts));
    sums[row] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), X::scaled(scale, x), sums[row]);
  }
}

template <typename X, int kRows>
VLM_AVX2 void multiply(const MatVecTask& task, int64_t begin, int64_t end) {
  const int64_t groups = task.shape.padded_inputs() / PackedShape::kGroup;
  const RowStarts<kRows, typename X::Groups> rows(task, X::kLaidOut);
  const std::byte* w = task.row(begin);
  for (int64_t output = begin; output < end; ++output) {
    __m256 sums[kRows];
    for (int row = 0; row < kRows; ++row) sums[row] = _mm256_setzero_ps();
    for (int64_t first = 0; first < groups; first += PackedShape::kRun / PackedShape::kGroup) {
      const int64_t last = std::min(groups, first + PackedShape::kRun / PackedShape::kGroup);
      const std::byte* scales = w;
      w += (last - first) * static_cast<int64_t>(sizeof(uint16_t));
      for (int64_t at = first; at < last; at += kInt4Groups) {
        add_groups<X, kRows>(rows, at / kInt4Groups, scales, w, sums);
        scales += kInt4Groups * sizeof(uint16_t);
        w += kPairs * kPairBytes;
      }
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) = total(sums[row]) * X::row_scale(task.inputs[row]);
    }
  }
}

template <typename X>
constexpr MatVecKernels::ByRows kKernels = {multiply<X, 1>, multiply<X, 2>, multiply<X, 3>,
                                            multiply<X, 4>};

}  // namespace

VLM_AVX2 void lay_out_bytes_avx2(const PackedShape& shape, const float* x, MatVecInput& input) {
  constexpr int64_t kGroup = PackedShape::kGroup;
  for (int64_t group = 0; group < shape.padded_inputs() / kGroup; ++group) {
    const int64_t at = std::min(group * kGroup, shape.inputs), count = shape.inputs - at;
    float some[kGroup] = {};
    if (count < kGroup) std::copy_n(x + at, count, some);
    const float* from = count < kGroup ? some : x + at;
    __m256 numbers[4];
    for (int64_t i = 0; i < 4; ++i) numbers[i] = _mm256_loadu_ps(from + i * 8);
    const BytesOfAvx2 bytes = round_to_bytes(numbers);
    Int4Bytes& to = input.bytes[static_cast<size_t>(group / kInt4Groups)];
    const int64_t own = group % kInt4Groups;
    auto* values = reinterpret_cast<__m128i*>(to.values + first_value<Int4Bytes>(own));
    _mm_store_si128(values, _mm256_castsi256_si128(bytes.values));
    _mm_store_si128(values + 2, _mm256_extracti128_si256(bytes.values, 1));
    to.shifts[group_place(own)] = -8 * bytes.sum;
    to.scales[group_place(own)] = bytes.scale;
  }
}

const MatVecKernels::ByRows kInt4WordsOfAvx2 = kKernels<Words>, kInt4BytesOfAvx2 = kKernels<Bytes>;

}  // namespace vlm

#endif
