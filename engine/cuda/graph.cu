// SPDX-License-Identifier: LGPL-2.1-or-later
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {

// Relaxed: libtorch's products, which are recorded too, may ask the driver for things that other
// modes forbid.
bool begin_capture(void* stream) {
  return succeeded(
      cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeRelaxed));
}

void* end_capture(void* stream) {
  cudaGraph_t graph = nullptr;
  if (!succeeded(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph))) return nullptr;
  cudaGraphExec_t ready = nullptr;
  const bool made = succeeded(cudaGraphInstantiate(&ready, graph, 0));
  cudaGraphDestroy(graph);
  return made ? ready : nullptr;
}

bool launch_graph(void* graph, void* stream) {
  return succeeded(
      cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(stream)));
}

void destroy_graph(void* graph) {
  if (graph != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace vlm
