// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Kernels for the vector instructions that the processor turns out to have.

#if defined(__x86_64__)
#define VLM_AVX2 __attribute__((target("avx2,fma")))
#else
#define VLM_AVX2
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

template <typename Kernel>
VLM_AVX2 void run_avx2(const Kernel& kernel) {
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
