// SPDX-License-Identifier: LGPL-2.1-or-later
// One thread for each element, or for as many as 16 bytes hold.
#include "cuda/attention_index.h"
#include "cuda/gate_function.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kThreads = 256;

template <typename T, int kWide>
__global__ void __launch_bounds__(kThreads) gate_kernel(GateArgs args) {
  let_next_start();
  wait_for_inputs();
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWide;
  const int64_t row = blockIdx.y;
  if (i >= args.size) return;
  float values[kWide], ups[kWide];
  widen_all<T>(static_cast<const T*>(args.gate) + row * args.gate_stride + i, values);
  if (args.up != nullptr) {
    widen_all<T>(static_cast<const T*>(args.up) + row * args.up_stride + i, ups);
#pragma unroll
    for (int k = 0; k < kWide; ++k) values[k] = gated<T>(args.function, values[k], ups[k]);
  } else {
#pragma unroll
    for (int k = 0; k < kWide; ++k) values[k] = gated<T>(args.function, values[k], 1);
  }
  store_all<T>(values, static_cast<T*>(args.out) + row * args.size + i);
}

}  // namespace

bool gate_cuda(const GateArgs& args, void* stream) {
  if (args.rows < 1 || args.rows > kMaxGridY) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool wide = wide_at<T>(args.gate, args.gate_stride) &&
                      wide_at<T>(args.up, args.up_stride) && wide_at<T>(args.out, args.size);
    const int64_t per_block = kThreads * (wide ? kPer16Bytes<T> : 1);
    const dim3 grid(static_cast<unsigned>((args.size + per_block - 1) / per_block),
                    static_cast<unsigned>(args.rows));
    const auto kernel = wide ? gate_kernel<T, kPer16Bytes<T>> : gate_kernel<T, 1>;
    return launch(kernel, grid, kThreads, 0, stream, args);
  });
}

}  // namespace vlm
