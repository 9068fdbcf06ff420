// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels.h"

namespace vlm {

/// Increases whenever CudaModule or an argument struct changes.
inline constexpr uint32_t kCudaModuleAbi = 5;

/// What decides about the work that a GPU is given.
struct GpuInfo {
  int processors = 0;     ///< multiprocessors
  int compute_major = 0;  ///< of its compute capability
};

/// What the GPU module offers. It is a library of its own (libvlm-cuda), so that one build serves
/// machines with and without a GPU. Its kernels are those of cuda/kernels.h. Thread-safe.
struct CudaModule {
  /// GPUs that the driver offers; 0 where there is none.
  int (*device_count)();
  /// Bytes free on a GPU; false where it cannot be asked.
  bool (*memory_free)(int device, size_t* free_bytes);
  /// Of the current GPU, which `device` is; zeros where it cannot be asked, or where the module
  /// holds no code for it.
  GpuInfo (*info)(int device);
  /// What the last call of this thread that failed says of it.
  const char* (*last_error)();
  /// Waits for everything on the stream; false: the GPU failed.
  bool (*synchronize)(void* stream);

  /// Marks in a stream, to wait for one without waiting for what comes after it. Null: none could
  /// be made.
  void* (*make_event)();
  bool (*record_event)(void* event, void* stream);
  bool (*wait_for_event)(void* event);
  void (*destroy_event)(void* event);

  /// `rows` pieces of `width` bytes, `pitch` bytes apart on both sides, from pinned memory.
  bool (*send_rows)(void* to, const void* from, size_t pitch, size_t width, size_t rows,
                    void* stream);

  bool (*paged_attention)(const PagedAttentionArgs& args, void* stream);
  bool (*split_attention)(const SplitAttentionArgs& args, void* stream);
  bool (*add_norm)(const AddNormArgs& args, void* stream);
  bool (*rotate_store)(const RotateStoreArgs& args, void* stream);
  bool (*gate)(const GateArgs& args, void* stream);
  bool (*embed)(const EmbedArgs& args, void* stream);
  bool (*pick)(const PickArgs& args, void* stream);
  bool (*sample)(const SampleArgs& args, void* stream);
  bool (*advance)(const AdvanceArgs& args, void* stream);
  bool (*matvec)(const GpuMatVecArgs& args, void* stream);
  bool (*repack)(const RepackArgs& args, void* stream);
  bool (*unpack)(const UnpackArgs& args, void* stream);
  bool (*upright)(const UprightArgs& args, void* stream);
  bool (*across)(const AcrossArgs& args, void* stream);
  bool (*along)(const AlongArgs& args, void* stream);

  /// Graphs: from begin to end what is enqueued on the stream, which is not the default one, is
  /// recorded and not run. end_capture returns null where something could not be recorded.
  bool (*begin_capture)(void* stream);
  void* (*end_capture)(void* stream);
  bool (*launch_graph)(void* graph, void* stream);
  void (*destroy_graph)(void* graph);
};

/// The module, opened on first use; null where there is no GPU or no module. A machine without the
/// NVIDIA driver's device files never opens it. Thread-safe.
const CudaModule* cuda_module();

}  // namespace vlm
