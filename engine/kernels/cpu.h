// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Kernels for the vector instructions that the processor turns out to have.

#if defined(__x86_64__)
#include <cpuid.h>

#define VLM_AVX2 __attribute__((target("avx2,fma")))
#define VLM_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define VLM_AVX512_BFLOAT16 \
  __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")))
#else
#define VLM_AVX2
#define VLM_AVX512
#endif

/// For the lambdas that with_vectors() takes, and for what they call.
#define VLM_INLINE __attribute__((always_inline))

namespace vlm {

inline bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

/// Servers since 2019: with products of 16-bit whole numbers.
inline bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

/// With products of bfloat16 as well.
inline bool has_avx512_bfloat16() {
#if defined(__x86_64__)
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

/// Has matrix units for bfloat16, of which the operating system has to be asked for first.
inline bool has_amx_bfloat16() {
#if defined(__x86_64__)
  // Clang 14 knows no name for it.
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & 1u << 22) != 0;
#else
  return false;
#endif
}

/// Whether the processor itself brings what is read in order, and asking for it only takes its
/// time: AMD's Zen 3 and Zen 4 (measured on the latter; Zen 5 gains by asking).
inline bool brings_streams_itself() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0 || b != signature_AMD_ebx) return false;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kFamily = 0x19;
  return (a >> 8 & 15u) + (a >> 20 & 255u) == kFamily;
#else
  return false;
#endif
}

template <typename Kernel>
VLM_AVX2 void run_avx2(const Kernel& kernel) {
  kernel();
}

/// Runs `kernel`, likewise, as compiled for AVX-512: only where has_avx512().
template <typename Kernel>
VLM_AVX512 void run_avx512(const Kernel& kernel) {
  kernel();
}

/// Runs `kernel`, a lambda marked VLM_INLINE of plain loops, as compiled for AVX2 where the
/// processor has it. (Clones by `arch=` would ask for one maker's model, not for what it can do.)
template <typename Kernel>
void with_vectors(const Kernel& kernel) {
  if (has_avx2()) {
    run_avx2(kernel);
  } else {
    kernel();
  }
}

}  // namespace vlm
