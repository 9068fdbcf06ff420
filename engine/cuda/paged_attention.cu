// SPDX-License-Identifier: LGPL-2.1-or-later
// Decode attention: one block for each (row, query head); each warp walks every kWarps-th cached
// position with an online softmax, lanes share the head's elements, and the warps' partial results
// meet in shared memory.
#include <cmath>

#include "cuda/attention_index.h"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 8;

// What one warp has seen: the highest score, the sum of exponentials below it, the weighted values.
template <int kPerLane>
struct Partial {
  float top = -INFINITY;
  float total = 0;
  float sums[kPerLane] = {};
};

template <typename T, int kPerLane>
__device__ void walk_positions(const PagedAttentionArgs& args, int64_t row, int64_t head, int warp,
                               int lane, Partial<kPerLane>& part) {
  const int dim = static_cast<int>(args.head_dim);
  const int64_t length = args.lengths[row];
  const int64_t kv_head = kv_head_of(head, args.heads, args.kv_heads);
  const T* query = static_cast<const T*>(args.q) + head_offset(row, head, args.heads, dim);
  const int32_t* slots = args.slot_table + row * args.table_stride;
  float q[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int element = lane + i * kWarpSize;
    q[i] = element < dim ? widen(query[element]) * args.scale : 0.0f;
  }
  for (int64_t t = first_visible(length, args.window) + warp; t < length; t += kWarps) {
    const int64_t offset = cache_offset(slots[t], kv_head, args.kv_heads, dim);
    const T* key = static_cast<const T*>(args.k_cache) + offset;
    const T* value = static_cast<const T*>(args.v_cache) + offset;
    float score = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int element = lane + i * kWarpSize;
      if (element < dim) score += q[i] * widen(key[element]);
    }
    score = warp_sum(score);
    const float top = fmaxf(part.top, score);
    const float keep = __expf(part.top - top);
    const float weight = __expf(score - top);
    part.total = part.total * keep + weight;
    part.top = top;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int element = lane + i * kWarpSize;
      if (element < dim) part.sums[i] = part.sums[i] * keep + weight * widen(value[element]);
    }
  }
}

template <typename T, int kPerLane>
__global__ void paged_attention_kernel(PagedAttentionArgs args) {
  __shared__ float tops[kWarps];
  __shared__ float totals[kWarps];
  __shared__ float sums[kWarps][kPerLane * kWarpSize];
  const int64_t row = blockIdx.y;
  const int64_t head = blockIdx.x;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  let_next_start();
  wait_for_inputs();
  Partial<kPerLane> part;
  walk_positions<T, kPerLane>(args, row, head, warp, lane, part);
  if (lane == 0) {
    tops[warp] = part.top;
    totals[warp] = part.total;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) sums[warp][lane + i * kWarpSize] = part.sums[i];
  __syncthreads();

  float top = tops[0];
  for (int w = 1; w < kWarps; ++w) top = fmaxf(top, tops[w]);
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += totals[w] * __expf(tops[w] - top);
  const int dim = static_cast<int>(args.head_dim);
  T* out = static_cast<T*>(args.out) + head_offset(row, head, args.heads, dim);
  for (int element = threadIdx.x; element < dim; element += kWarps * kWarpSize) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += sums[w][element] * __expf(tops[w] - top);
    store(sum / total, out + element);
  }
}

template <typename T, int kPerLane>
bool run(const PagedAttentionArgs& args, void* stream) {
  const dim3 grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(args.rows));
  return launch(paged_attention_kernel<T, kPerLane>, grid, kWarps * kWarpSize, 0, stream, args);
}

template <typename T>
bool run_for_dim(const PagedAttentionArgs& args, void* stream) {
  const int64_t per_lane = (args.head_dim + kWarpSize - 1) / kWarpSize;
  if (per_lane <= 1) return run<T, 1>(args, stream);
  if (per_lane <= 2) return run<T, 2>(args, stream);
  if (per_lane <= 4) return run<T, 4>(args, stream);
  if (per_lane <= 8) return run<T, 8>(args, stream);
  return false;
}

}  // namespace

bool paged_attention_cuda(const PagedAttentionArgs& args, void* stream) {
  if (args.rows < 1 || args.rows > kMaxGridY) return false;
  return with_type(args.type, [&](auto* type) {
    return run_for_dim<std::remove_pointer_t<decltype(type)>>(args, stream);
  });
}

}  // namespace vlm
