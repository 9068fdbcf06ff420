// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "cuda/types.cuh"
#include "kernels/kernel_type.h"

namespace vlm {

/// What decides about launches, of the current GPU.
struct GpuTraits {
  int major = 0;             ///< of the compute capability; 0: unknown
  int processors = 0;        ///< multiprocessors
  size_t shared_memory = 0;  ///< bytes that a block may ask for
};
GpuTraits gpu_traits();

/// Keeps the error for CudaModule::last_error(); whether it is none.
bool succeeded(cudaError_t error);

// Kernels of one step follow each other closely: each lets the next one start as soon as there is
// room, and the next one fetches weights, which nobody writes, before it waits for what the others
// write. All kernels wait, so that one's end means the end of all before it.

__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

__device__ inline void wait_for_inputs() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

template <typename T>
struct Same {
  using Type = T;
};

/// Enqueues a kernel that calls both of the above.
template <typename... Parameters>
bool launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
            void* stream, typename Same<Parameters>::Type... parameters) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = gpu_traits().major >= 9 ? 1 : 0;
  return succeeded(cudaLaunchKernelEx(&config, kernel, parameters...));
}

/// Calls `work` with a null pointer to the type that `type` names.
template <typename Work>
bool with_type(KernelType type, const Work& work) {
  switch (type) {
    case KernelType::kFloat32:
      return work(static_cast<float*>(nullptr));
    case KernelType::kFloat16:
      return work(static_cast<__half*>(nullptr));
    case KernelType::kBFloat16:
      return work(static_cast<__nv_bfloat16*>(nullptr));
  }
  return false;
}

}  // namespace vlm
