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
  if (!has_code()) return {};
  return {attribute(cudaDevAttrMultiProcessorCount, device),
          attribute(cudaDevAttrComputeCapabilityMajor, device)};
}

const char* last_error() {
  return cudaGetErrorString(last_failure);
}

bool synchronize(void* stream) {
  return succeeded(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

void* make_event() {
  cudaEvent_t event = nullptr;
  return succeeded(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)) ? event : nullptr;
}

bool record_event(void* event, void* stream) {
  return succeeded(
      cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)));
}

bool wait_for_event(void* event) {
  return succeeded(cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}

void destroy_event(void* event) {
  cudaEventDestroy(static_cast<cudaEvent_t>(event));
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
    make_event,
    record_event,
    wait_for_event,
    destroy_event,
    send_rows,
    paged_attention_cuda,
    split_attention_cuda,
    add_norm_cuda,
    rotate_store_cuda,
    gate_cuda,
    embed_cuda,
    pick_cuda,
    sample_cuda,
    advance_cuda,
    matvec_cuda,
    repack_cuda,
    unpack_cuda,
    upright_cuda,
    across_cuda,
    along_cuda,
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
          attribute(cudaDevAttrMultiProcessorCount, device),
          static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device))};
}

}  // namespace vlm

/// Null where `abi` is not the module's own.
extern "C" __attribute__((visibility("default"))) const vlm::CudaModule* vlm_cuda_module(
    uint32_t abi) {
  return abi == vlm::kCudaModuleAbi ? &vlm::kModule : nullptr;
}
