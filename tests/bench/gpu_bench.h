// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/TensorOperators.h>
#include <c10/core/StreamGuard.h>

#include <functional>

#include "base/device.h"
#include "cuda/module.h"
#include "cuda/tensor_ops.h"

namespace bench {

/// The GPU and the stream that work is measured on, while one lives.
struct Gpu {
  c10::Device device = vlm::resolve_device("cuda");
  c10::Stream stream = vlm::work_stream(device);
  c10::StreamGuard guard{stream};
  const vlm::CudaModule& module = *vlm::cuda_module();
  at::TensorOptions half = at::TensorOptions().device(device).dtype(at::kBFloat16);

  void* queue() const { return vlm::current_stream(device); }
};

/// Seconds of one of `calls` calls of work(i), as a graph; best of a few runs.
double seconds(const Gpu& gpu, int calls, const std::function<void(int)>& work);

/// A line of the table: the time, the rate at which `bytes` were moved, and its share of `read`, in
/// GB/s.
void print(const char* what, int64_t rows, double bytes, double time, double read);

/// What a step does beside its products and attention, on a model of this width; `read` as above.
void measure_elementwise(const Gpu& gpu, int64_t hidden, int64_t inner, int64_t heads,
                         int64_t kv_heads, double read);
/// Weights on their way between the CPU's packed rows, the GPU's and plain ones.
void measure_packing(const Gpu& gpu, int64_t outputs, int64_t inputs, double read);
/// A picture from a decoder's memory to an input of the tower.
void measure_pictures(const Gpu& gpu, double read);

}  // namespace bench
