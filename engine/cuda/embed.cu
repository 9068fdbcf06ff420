// SPDX-License-Identifier: LGPL-2.1-or-later
// One block for each row.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbedArgs args) {
  // In this order: attention reads ahead of its wait what the kernel before this one may have
  // written.
  wait_for_inputs();
  let_next_start();
  const int64_t row = blockIdx.x;
  const T* from = static_cast<const T*>(args.table) + args.ids[row] * args.size;
  T* to = static_cast<T*>(args.out) + row * args.size;
  for (int64_t i = threadIdx.x; i < args.size; i += kThreads) to[i] = from[i];
}

}  // namespace

bool has_code() {
  cudaFuncAttributes attributes;
  return succeeded(cudaFuncGetAttributes(&attributes, embed_kernel<float>));
}

bool embed_cuda(const EmbedArgs& args, void* stream) {
  if (args.rows < 1) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch(embed_kernel<T>, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream,
                  args);
  });
}

}  // namespace vlm
