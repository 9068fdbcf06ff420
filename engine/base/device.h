// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <string>

#include "vlm/types.h"

namespace vlm {

/// The device that `name` (auto, cpu, cuda, cuda:N) means on this machine. Loads libtorch's CUDA
/// half where a GPU is chosen, and only then. Throws Failure (kInvalidArgument, kDevice).
c10::Device resolve_device(const std::string& name);

/// The type the model runs in. kAuto: the stored one on a GPU; on a CPU bfloat16 where there
/// are fast products of it, else float32.
DType resolve_dtype(DType wanted, DType stored, c10::Device device);

/// Bytes of memory that could be allocated on the device now.
int64_t available_memory(c10::Device device);

/// The stream for one engine's work on a GPU: not the default one, which no graph can be recorded
/// on.
c10::Stream work_stream(c10::Device device);

/// The raw CUDA stream on which libtorch enqueues for this thread.
void* current_stream(c10::Device device);

}  // namespace vlm
