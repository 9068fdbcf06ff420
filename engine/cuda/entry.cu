// SPDX-License-Identifier: LGPL-2.1-or-later
#include <cuda_runtime.h>

#include "cuda/launch.cuh"
#include "cuda/module.h"

namespace vlm {
namespace {

thread_local cudaError_t last_failure = cudaSuccess;

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

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, which, device) == cudaSuccess ? value : 0;
}

GpuInfo info(int device) {
  return {attribute(cudaDevAttrMultiProcessorCount, device),
          attribute(cudaDevAttrComputeCapabilityMajor, device)};
}

const char* last_error() {
  return cudaGetErrorString(last_failure);
}

bool synchronize(void* stream) {
  return succeeded(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

bool send_rows(void* to, const void* from, size_t pitch, size_t width, size_t rows, void* stream) {
  return succeeded(cudaMemcpy2DAsync(to, pitch, from, pitch, width, rows, cudaMemcpyHostToDevice,
                                     static_cast<cudaStream_t>(stream)));
}

constexpr CudaModule kModule = {
    device_count,
    memory_free,
    info,
    last_error,
    synchronize,
    send_rows,
    paged_attention_cuda,
    split_attention_cuda,
    add_norm_cuda,
    rotate_store_cuda,
    gate_cuda,
    embed_cuda,
    pick_cuda,
    matvec_cuda,
    repack_cuda,
    unpack_cuda,
    begin_capture,
    end_capture,
    launch_graph,
    destroy_graph,
};

}  // namespace

bool succeeded(cudaError_t error) {
  if (error == cudaSuccess) return true;
  last_failure = error;
  cudaGetLastError();
  return false;
}

GpuTraits gpu_traits() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return {};
  return {attribute(cudaDevAttrComputeCapabilityMajor, device),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device))};
}

}  // namespace vlm

/// Null where `abi` is not the module's own.
extern "C" __attribute__((visibility("default"))) const vlm::CudaModule* vlm_cuda_module(
    uint32_t abi) {
  return abi == vlm::kCudaModuleAbi ? &vlm::kModule : nullptr;
}
