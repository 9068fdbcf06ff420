// SPDX-License-Identifier: LGPL-2.1-or-later
#include <cuda_runtime.h>

#include "cuda/module.h"
#include "cuda/paged_attention.h"

namespace vlm {
namespace {

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

bool memory_free(int device, size_t* free_bytes) {
  int current = 0;
  size_t total = 0;
  if (cudaGetDevice(&current) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) return false;
  const bool known = cudaMemGetInfo(free_bytes, &total) == cudaSuccess;
  return cudaSetDevice(current) == cudaSuccess && known;
}

constexpr CudaModule kModule = {device_count, memory_free, paged_attention_cuda};

}  // namespace
}  // namespace vlm

/// Null where `abi` is not the module's own.
extern "C" __attribute__((visibility("default"))) const vlm::CudaModule* vlm_cuda_module(
    uint32_t abi) {
  return abi == vlm::kCudaModuleAbi ? &vlm::kModule : nullptr;
}
