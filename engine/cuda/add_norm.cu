// SPDX-License-Identifier: LGPL-2.1-or-later
// One block for each row.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

template <typename T, int kWide>
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
  for (int64_t i = threadIdx.x * kWide; i < args.size; i += kThreads * kWide) {
    float values[kWide];
    widen_all<T>(x + i, values);
    if (delta != nullptr) {
      float more[kWide];
      widen_all<T>(delta + i, more);
#pragma unroll
      for (int k = 0; k < kWide; ++k) values[k] = rounded<T>(values[k] + more[k]);
      store_all<T>(values, sum + i);
    }
#pragma unroll
    for (const float value : values) squares += value * value;
  }
  squares = block_sum<kWarps>(squares, parts);
  const float scale = 1 / sqrtf(squares / static_cast<float>(args.size) + args.eps);
  const T* summed = delta == nullptr ? x : sum;  // each thread reads back what it wrote itself
  for (int64_t i = threadIdx.x * kWide; i < args.size; i += kThreads * kWide) {
    float values[kWide], weights[kWide];
    widen_all<T>(summed + i, values);
    widen_all<T>(weight + i, weights);
#pragma unroll
    for (int k = 0; k < kWide; ++k) values[k] = weights[k] * rounded<T>(values[k] * scale);
    store_all<T>(values, out + i);
  }
}

}  // namespace

bool add_norm_cuda(const AddNormArgs& args, void* stream) {
  if (args.rows < 1) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool wide = wide_at<T>(args.x, args.size) && wide_at<T>(args.delta, args.size) &&
                      wide_at<T>(args.sum, args.size) && wide_at<T>(args.weight, args.size) &&
                      wide_at<T>(args.out, args.size);
    const auto kernel = wide ? add_norm_kernel<T, kPer16Bytes<T>> : add_norm_kernel<T, 1>;
    return launch(kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream, args);
  });
}

}  // namespace vlm
