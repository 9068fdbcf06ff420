// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/paged_attention.h"

namespace vlm {

/// Increases whenever CudaModule or an argument struct changes.
inline constexpr uint32_t kCudaModuleAbi = 1;

/// What the GPU module offers. It is a library of its own (libvlm-cuda), so that one build serves
/// machines with and without a GPU. Kernels take raw device pointers and a CUDA stream, enqueue and
/// return; false means that the kernel does not cover these arguments and nothing was enqueued.
/// Thread-safe.
struct CudaModule {
  /// GPUs that the driver offers; 0 where there is none.
  int (*device_count)();
  /// Bytes free on a GPU; false where it cannot be asked.
  bool (*memory_free)(int device, size_t* free_bytes);
  bool (*paged_attention)(const PagedAttentionArgs& args, void* stream);
};

/// The module, opened on first use; null where there is no GPU or no module. A machine without the
/// NVIDIA driver's device files never opens it. Thread-safe.
const CudaModule* cuda_module();

}  // namespace vlm
