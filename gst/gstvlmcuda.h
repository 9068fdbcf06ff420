// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Frames in the memory of an NVIDIA GPU, where the GStreamer that this is built with has its CUDA
// library; without it nothing is ever found there, and such frames are read through system memory.

#include <memory>
#include <string>

#include "gstvlm-utils.h"
#include "gstvlmframe.h"

namespace gstvlm {

/// Answers a CONTEXT query for a CUDA context with one of the GPU that `device` (ModelSpec::device)
/// means: the one that the element has, else the one that the application or the pipeline gives
/// when asked, else the GPU's primary context, the engine's own, which is then told to the
/// pipeline. False for any other query, for `cpu`, and where there is no GPU. Hold no lock.
bool answer_cuda_context(GstElement* element, const std::string& device, GstQuery* query);

/// Sees to the same context without being asked, for elements that come later. Does nothing where
/// `device` does not name a GPU. Hold no lock.
void announce_cuda_context(GstElement* element, const std::string& device);

/// The frame as it lies on the GPU that `device` (ModelInfo::device) names; null where it does not
/// lie there, in another context than the primary one, or otherwise than plain_layout() and no crop
/// metadata. Waits for whatever still writes the frame. The picture holds the buffer, mapped for
/// reading. Reentrant.
std::shared_ptr<const vlm::GpuPicture> picture_on_gpu(GstBuffer* buffer, const Look& look,
                                                      const std::string& device);

}  // namespace gstvlm
