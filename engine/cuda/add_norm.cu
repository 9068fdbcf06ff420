// SPDX-License-Identifier: LGPL-2.1-or-later
// One block for each row.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

template <typename T>
__global__ void __launch_bounds__(kThreads) add_norm_kernel(AddNormArgs args) {
  __shared__ float parts[kWarps];
  let_next_start();
  wait_for_inputs();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * args.size;
  const T* x = static_cast<const T*>(args.x) + first;
  const T* delta = args.delta == nullptr ? nullptr : static_cast<const T*>(args.delta) + first;
  T* sum = static_cast<T*>(args.sum) + first;
  const T* weight = static_cast<const T*>(args.weight);
  T* out = static_cast<T*>(args.out) + first;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < args.size; i += kThreads) {
    float value = widen(x[i]);
    if (delta != nullptr) {
      value = rounded<T>(value + widen(delta[i]));
      store(value, sum + i);
    }
    squares += value * value;
  }
  squares = block_sum<kWarps>(squares, parts);
  const float scale = 1 / sqrtf(squares / static_cast<float>(args.size) + args.eps);
  const T* summed = delta == nullptr ? x : sum;  // each thread reads back what it wrote itself
  for (int64_t i = threadIdx.x; i < args.size; i += kThreads) {
    store(widen(weight[i]) * rounded<T>(widen(summed[i]) * scale), out + i);
  }
}

}  // namespace

bool add_norm_cuda(const AddNormArgs& args, void* stream) {
  if (args.rows < 1) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch(add_norm_kernel<T>, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream,
                  args);
  });
}

}  // namespace vlm
