// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace vlm {

// float32 and bfloat16 (as its 16 bits) by one pair of overloads, so that a kernel is written once
// for both. Narrowing rounds to nearest, ties to even.

inline float widen(float value) {
  return value;
}

inline float widen(uint16_t bfloat) {
  const uint32_t bits = static_cast<uint32_t>(bfloat) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void narrow(float value, float* out) {
  *out = value;
}

inline void narrow(float value, uint16_t* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  *out = static_cast<uint16_t>(std::isnan(value) ? 0x7FC0u : rounded >> 16);
}

}  // namespace vlm
