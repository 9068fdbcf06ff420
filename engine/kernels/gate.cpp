// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/gate.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "kernels/bfloat16.h"
#include "kernels/cpu.h"

namespace vlm {
namespace {

constexpr int64_t kElementsPerTask = int64_t{1} << 14;

VLM_INLINE inline float rounded(float value) {
  uint16_t half;
  narrow(value, &half);
  return widen(half);
}

// e^x to 1e-6 of itself, which rounding to bfloat16 hides, without a call, so that the compiler
// makes vectors of it: 2^n · 2^f with 2^f as its Taylor series around 0, f within ±½.
VLM_INLINE inline float exponential(float x) {
  constexpr float kLog2E = 1.44269504f, kShift = 0x1.8p23f;
  const float scaled = std::min(std::max(x * kLog2E, -126.0f), 127.0f);
  const float shifted = scaled + kShift;  // rounds to a whole number, in the lowest bits
  const float f = scaled - (shifted - kShift);
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<int32_t>(static_cast<uint32_t>(bits) << 23) + 0x3F800000;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  const float series =
      1 + f * (0.693147181f +
               f * (0.240226507f +
                    f * (0.0555041087f +
                         f * (0.00961812911f + f * (0.00133335581f + f * 0.000154035304f)))));
  return power * series;
}

VLM_INLINE inline float sigmoid(float x) {
  return 1 / (1 + exponential(-x));
}

template <Activation kActivation>
VLM_INLINE inline float activated(float x) {
  static_assert(kActivation == Activation::kSilu || kActivation == Activation::kQuickGelu);
  if constexpr (kActivation == Activation::kSilu) return rounded(x * sigmoid(x));
  return rounded(x * rounded(sigmoid(rounded(1.702f * x))));
}

template <Activation kActivation>
void run(const uint16_t* gate, const uint16_t* up, uint16_t* out, int64_t count) {
  at::parallel_for(0, count, kElementsPerTask, [&](int64_t begin, int64_t end) {
    with_vectors([&]() VLM_INLINE {
      if (up == nullptr) {
        for (int64_t i = begin; i < end; ++i)
          narrow(activated<kActivation>(widen(gate[i])), out + i);
      } else {
        for (int64_t i = begin; i < end; ++i) {
          narrow(activated<kActivation>(widen(gate[i])) * widen(up[i]), out + i);
        }
      }
    });
  });
}

}  // namespace

bool gate_cpu(const uint16_t* gate, const uint16_t* up, uint16_t* out, int64_t count,
              Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      run<Activation::kSilu>(gate, up, out, count);
      return true;
    case Activation::kQuickGelu:
      run<Activation::kQuickGelu>(gate, up, out, count);
      return true;
    default:
      return false;
  }
}

}  // namespace vlm
