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

#include <cstdint>

/// For loops over registers: left as loops they would go through memory.
#if defined(__clang__)
#define VLM_UNROLL _Pragma("unroll")
#else
#define VLM_UNROLL _Pragma("GCC unroll 8")
#endif

namespace vlm {

/// The first `count` of 16 or 32 lanes; all or none beyond either end.
inline uint32_t first_lanes(int64_t count) {
  return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1;
}

}  // namespace vlm

#endif
