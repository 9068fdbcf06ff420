// SPDX-License-Identifier: LGPL-2.1-or-later
// One thread for each pair of elements that turn together, or for as many pairs as 16 bytes hold:
// of q, k and, copied only, v.
#include "cuda/attention_index.h"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/rotation.cuh"

namespace vlm {
namespace {

constexpr int kThreads = 256;

template <typename T, int kWide>
__global__ void __launch_bounds__(kThreads) rotate_store_kernel(RotateStoreArgs args) {
  let_next_start();
  wait_for_inputs();
  const RotateTarget& target = args.target;
  const int64_t half = target.head_dim / 2;
  const int64_t pair = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWide;
  const int64_t row = blockIdx.y;
  const int64_t head = pair / half, i = pair % half;
  if (head >= target.heads + 2 * target.kv_heads) return;
  float low[kWide], high[kWide];
  if (head < target.heads) {
    T* q = static_cast<T*>(args.q) + row * args.q_stride + head * target.head_dim + i;
    widen_all<T>(q, low);
    widen_all<T>(q + half, high);
    rotate_pairs<T>(target, row, i, low, high);
    store_all<T>(low, q);
    store_all<T>(high, q + half);
    return;
  }
  const int64_t kv_head = (head - target.heads) % target.kv_heads;
  const int64_t offset = target_offset(target, row, kv_head) + i;
  if (head >= target.heads + target.kv_heads) {
    const T* v =
        static_cast<const T*>(args.v) + row * args.v_stride + kv_head * target.head_dim + i;
    T* kept = static_cast<T*>(target.v_cache) + offset;
    widen_all<T>(v, low);
    widen_all<T>(v + half, high);
    store_all<T>(low, kept);
    store_all<T>(high, kept + half);
    return;
  }
  T* k = static_cast<T*>(args.k) + row * args.k_stride + kv_head * target.head_dim + i;
  T* kept = static_cast<T*>(target.k_cache) + offset;
  widen_all<T>(k, low);
  widen_all<T>(k + half, high);
  rotate_pairs<T>(target, row, i, low, high);
  store_all<T>(low, k);
  store_all<T>(high, k + half);
  store_all<T>(low, kept);
  store_all<T>(high, kept + half);
}

template <typename T>
bool wide_everywhere(const RotateStoreArgs& args) {
  const RotateTarget& target = args.target;
  const int64_t half = target.head_dim / 2;
  return wide_at<T>(args.q, args.q_stride) && wide_at<T>(args.k, args.k_stride) &&
         wide_at<T>(args.v, args.v_stride) && wide_at<T>(target.cos, half) &&
         wide_at<T>(target.sin, half) && wide_at<T>(target.k_cache, half) &&
         wide_at<T>(target.v_cache, half);
}

}  // namespace

bool rotate_store_cuda(const RotateStoreArgs& args, void* stream) {
  const RotateTarget& target = args.target;
  if (args.rows < 1 || args.rows > kMaxGridY || target.head_dim % 2 != 0) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool wide = wide_everywhere<T>(args);
    const int64_t pairs = (target.heads + 2 * target.kv_heads) * (target.head_dim / 2);
    const int64_t per_block = kThreads * (wide ? kPer16Bytes<T> : 1);
    const dim3 grid(static_cast<unsigned>((pairs + per_block - 1) / per_block),
                    static_cast<unsigned>(args.rows));
    const auto kernel = wide ? rotate_store_kernel<T, kPer16Bytes<T>> : rotate_store_kernel<T, 1>;
    return launch(kernel, grid, kThreads, 0, stream, args);
  });
}

}  // namespace vlm
