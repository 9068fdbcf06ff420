// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cpu.h"

namespace vlm {

// Numbers that a vector register of the processor holds, as the compiler's own type: where it would
// make no vectors of a plain loop.

template <int kLanes>
struct Vectors;
template <>
struct Vectors<8> {
  using Lanes [[gnu::vector_size(32)]] = float;
  using Halves [[gnu::vector_size(16)]] = uint16_t;
  using Words [[gnu::vector_size(32)]] = uint32_t;
  using Integers [[gnu::vector_size(32)]] = int32_t;
  using Bytes [[gnu::vector_size(8)]] = int8_t;
};
template <>
struct Vectors<16> {
  using Lanes [[gnu::vector_size(64)]] = float;
  using Halves [[gnu::vector_size(32)]] = uint16_t;
  using Words [[gnu::vector_size(64)]] = uint32_t;
  using Integers [[gnu::vector_size(64)]] = int32_t;
  using Bytes [[gnu::vector_size(16)]] = int8_t;
};

template <int kLanes>
using Lanes = typename Vectors<kLanes>::Lanes;

// References, since vectors by value are passed differently from processor to processor.

template <int kLanes>
VLM_INLINE inline void load(const float* from, Lanes<kLanes>& to) {
  std::memcpy(&to, from, sizeof to);
}

/// bfloat16.
template <int kLanes>
VLM_INLINE inline void load(const uint16_t* from, Lanes<kLanes>& to) {
  typename Vectors<kLanes>::Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  using Words = typename Vectors<kLanes>::Words;
  const Words words = __builtin_convertvector(halves, Words) << 16;
  std::memcpy(&to, &words, sizeof to);
}

// Where the lower half of each lane comes first, which is everywhere that this runs: GCC 12 makes
// twice as many instructions of the other.
template <>
VLM_INLINE inline void load<8>(const uint16_t* from, Lanes<8>& to) {
  Vectors<8>::Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Vectors<8>::Halves zeros = {};
  const auto both =
      __builtin_shufflevector(zeros, halves, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  std::memcpy(&to, &both, sizeof to);
}

/// The bits of the nearest bfloat16, ties to even; what is no number stays none.
template <int kLanes>
VLM_INLINE inline void nearest_half(const Lanes<kLanes>& value,
                                    typename Vectors<kLanes>::Words& bits) {
  std::memcpy(&bits, &value, sizeof bits);
  bits = value != value ? bits | 0x400000u : bits + 0x7FFFu + (bits >> 16 & 1u);
}

template <int kLanes>
VLM_INLINE inline void store(const Lanes<kLanes>& value, float* to) {
  std::memcpy(to, &value, sizeof value);
}

/// bfloat16.
template <int kLanes>
VLM_INLINE inline void store(const Lanes<kLanes>& value, uint16_t* to) {
  typename Vectors<kLanes>::Words bits;
  nearest_half<kLanes>(value, bits);
  const auto halves = __builtin_convertvector(bits >> 16, typename Vectors<kLanes>::Halves);
  std::memcpy(to, &halves, sizeof halves);
}

/// To the values that T holds: float or bfloat16.
template <typename T, int kLanes>
VLM_INLINE inline void round_to(Lanes<kLanes>& value) {
  if constexpr (std::is_same_v<T, uint16_t>) {
    typename Vectors<kLanes>::Words bits;
    nearest_half<kLanes>(value, bits);
    bits &= 0xFFFF0000u;
    std::memcpy(&value, &bits, sizeof value);
  }
}

/// e^x to 1e-6 of itself, which rounding to bfloat16 hides: 2^n · 2^f with 2^f as its Taylor series
/// around 0, f within ±½.
template <int kLanes>
VLM_INLINE inline void exponential(Lanes<kLanes>& x) {
  constexpr float kLog2E = 1.44269504f, kShift = 0x1.8p23f;
  Lanes<kLanes> scaled = x * kLog2E;
  scaled = scaled < -126.0f ? Lanes<kLanes>{} - 126.0f : scaled;
  scaled = scaled > 127.0f ? Lanes<kLanes>{} + 127.0f : scaled;
  const Lanes<kLanes> shifted = scaled + kShift;  // a whole number, in the lowest bits
  const Lanes<kLanes> f = scaled - (shifted - kShift);
  typename Vectors<kLanes>::Words bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3F800000u;
  std::memcpy(&x, &bits, sizeof bits);
  x *= 1 + f * (0.693147181f +
                f * (0.240226507f +
                     f * (0.0555041087f +
                          f * (0.00961812911f + f * (0.00133335581f + f * 0.000154035304f)))));
}

/// The largest of `count` values, one or more.
template <int kLanes>
VLM_INLINE inline float largest(const float* values, int64_t count) {
  float top = values[0];
  int64_t i = 0;
  if (count >= kLanes) {
    Lanes<kLanes> tops;
    load<kLanes>(values, tops);
    for (i = kLanes; i + kLanes <= count; i += kLanes) {
      Lanes<kLanes> some;
      load<kLanes>(values + i, some);
      tops = some > tops ? some : tops;
    }
    for (int lane = 0; lane < kLanes; ++lane) top = tops[lane] > top ? tops[lane] : top;
  }
  for (; i < count; ++i) top = values[i] > top ? values[i] : top;
  return top;
}

/// e^(value - top) of `count` values, whole registers, in their place. Returns the sum.
template <int kLanes>
VLM_INLINE inline float exponentials(float* values, int64_t count, float top) {
  Lanes<kLanes> sums = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    Lanes<kLanes> some;
    load<kLanes>(values + i, some);
    some -= top;
    exponential<kLanes>(some);
    sums += some;
    store<kLanes>(some, values + i);
  }
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return sum;
}

/// Runs `kernel`, a lambda marked VLM_INLINE that takes a std::integral_constant of the number of
/// lanes, as compiled for what the processor has.
template <typename Kernel>
void with_lanes(const Kernel& kernel) {
  if (has_avx512()) {
    run_avx512([&]() VLM_INLINE { kernel(std::integral_constant<int, 16>()); });
  } else {
    with_vectors([&]() VLM_INLINE { kernel(std::integral_constant<int, 8>()); });
  }
}

}  // namespace vlm
