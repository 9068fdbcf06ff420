// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "vlm/error.h"

// Kernels for the vector instructions that the processor turns out to have.

#if defined(__x86_64__)
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

/// For loops over registers: left as loops they would go through memory.
#if defined(__clang__)
#define VLM_UNROLL _Pragma("unroll")
#else
#define VLM_UNROLL _Pragma("GCC unroll 16")
#endif

namespace vlm {

/// Instructions that kernels are written for, each with all that stand before it.
enum class CpuLevel { kPortable, kAvx2, kAvx512, kAvx512BFloat16, kAmx };

/// The level called `name`: portable, avx2, avx512, avx512-bfloat16, amx. kInvalidArgument, with
/// these names, where it is another one. Reentrant.
Result<CpuLevel> cpu_level(const char* name);

/// Whether the environment variable VLM_MAX_CPU_ISA, where it is set, names a level. Read once in
/// the process, as all of the following is. Reentrant.
Status check_cpu_limit();

// What the processor has, up to the level that VLM_MAX_CPU_ISA names; a name that is none limits
// nothing. All choices between kernels, also of those that are libtorch's, follow these. Reentrant.

bool has_avx2();

/// Servers since 2019: with products of 16-bit whole numbers.
bool has_avx512();

/// All servers with AVX-512, those of 2017 included: enough for libtorch's products of bfloat16.
bool has_avx512_words();

/// With products of bfloat16 as well.
bool has_avx512_bfloat16();

/// Has matrix units for bfloat16, of which the operating system has to be asked for first.
bool has_amx_bfloat16();

/// Whether the processor itself brings what is read in order, and asking for it only takes its
/// time: AMD's Zen 3 and Zen 4 (measured on the latter; Zen 5 gains by asking).
bool brings_streams_itself();

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
