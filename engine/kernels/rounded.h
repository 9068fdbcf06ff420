// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace vlm {

// float32 operations whose result is rounded before it is used: a GPU's compiler may else round
// once for a product and the sum that it goes into, and a number would depend on where it is
// computed.

VLM_HOST_DEVICE inline float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

VLM_HOST_DEVICE inline float rounded_sum(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

/// From 0 to 255, rounded to the nearest.
VLM_HOST_DEVICE inline uint8_t nearest_byte(float value) {
  const int whole = static_cast<int>(rounded_sum(value, 0.5F));
  return static_cast<uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

}  // namespace vlm
