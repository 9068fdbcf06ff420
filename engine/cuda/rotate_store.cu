// SPDX-License-Identifier: LGPL-2.1-or-later
// One thread for each pair of elements that turn together: of q, k and, copied only, v.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/rotation.cuh"

namespace vlm {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) rotate_store_kernel(RotateStoreArgs args) {
  let_next_start();
  wait_for_inputs();
  const RotateTarget& target = args.target;
  const int64_t half = target.head_dim / 2;
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = blockIdx.y;
  const int64_t head = pair / half, i = pair % half;
  if (head >= target.heads + 2 * target.kv_heads) return;
  if (head < target.heads) {
    T* q = static_cast<T*>(args.q) + row * args.q_stride + head * target.head_dim;
    const RotatedPair turned = rotate_pair<T>(target, row, i, widen(q[i]), widen(q[half + i]));
    store(turned.low, q + i);
    store(turned.high, q + half + i);
    return;
  }
  const int64_t kv_head = (head - target.heads) % target.kv_heads;
  const int64_t offset = target_offset(target, row, kv_head);
  if (head >= target.heads + target.kv_heads) {
    const T* v = static_cast<const T*>(args.v) + row * args.v_stride + kv_head * target.head_dim;
    T* kept = static_cast<T*>(target.v_cache) + offset;
    kept[i] = v[i];
    kept[half + i] = v[half + i];
    return;
  }
  T* k = static_cast<T*>(args.k) + row * args.k_stride + kv_head * target.head_dim;
  T* kept = static_cast<T*>(target.k_cache) + offset;
  const RotatedPair turned = rotate_pair<T>(target, row, i, widen(k[i]), widen(k[half + i]));
  store(turned.low, k + i);
  store(turned.high, k + half + i);
  kept[i] = k[i];
  kept[half + i] = k[half + i];
}

}  // namespace

bool rotate_store_cuda(const RotateStoreArgs& args, void* stream) {
  const RotateTarget& target = args.target;
  constexpr int64_t kMaxGridY = 65535;
  if (args.rows < 1 || args.rows > kMaxGridY || target.head_dim % 2 != 0) return false;
  const int64_t pairs = (target.heads + 2 * target.kv_heads) * (target.head_dim / 2);
  const dim3 grid(static_cast<unsigned>((pairs + kThreads - 1) / kThreads),
                  static_cast<unsigned>(args.rows));
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch(rotate_store_kernel<T>, grid, kThreads, 0, stream, args);
  });
}

}  // namespace vlm
