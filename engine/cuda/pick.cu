// SPDX-License-Identifier: LGPL-2.1-or-later
// One block for each row, two passes: the best token, then the sum of exponentials below it.
#include <cmath>

#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 32;
constexpr int kThreads = kWarps * kWarpSize;

struct Best {
  float value;
  int64_t token;
};

__device__ Best better(const Best& a, const Best& b) {
  return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

__device__ Best warp_best(Best best) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    best = better(best, {__shfl_xor_sync(kAllLanes, best.value, offset),
                         __shfl_xor_sync(kAllLanes, best.token, offset)});
  }
  return best;
}

__device__ bool is_banned(const PickArgs& args, int64_t token) {
  const int64_t* banned = args.banned + blockIdx.x * args.banned_size;
  for (int64_t i = 0; i < args.banned_size; ++i) {
    if (banned[i] == token) return true;
  }
  return false;
}

__global__ void __launch_bounds__(kThreads) pick_kernel(PickArgs args) {
  __shared__ float values[kWarps], tops[kWarps], parts[kWarps];
  __shared__ int64_t tokens[kWarps];
  let_next_start();
  wait_for_inputs();
  const float* logits = args.logits + static_cast<int64_t>(blockIdx.x) * args.vocab_size;
  Best best = {-INFINITY, args.vocab_size - 1};
  float top = -INFINITY;
  for (int64_t i = threadIdx.x; i < args.vocab_size; i += kThreads) {
    const float logit = logits[i];
    top = fmaxf(top, logit);
    // Looked up only where it matters, which is seldom.
    if (logit >= best.value && !is_banned(args, i)) best = better(best, {logit, i});
  }
  best = warp_best(best);
  top = warp_max(top);
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  if (lane == 0) {
    values[warp] = best.value;
    tokens[warp] = best.token;
    tops[warp] = top;
  }
  __syncthreads();
  best = warp_best({values[lane], tokens[lane]});
  top = warp_max(tops[lane]);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < args.vocab_size; i += kThreads) sum += expf(logits[i] - top);
  sum = block_sum<kWarps>(sum, parts);
  if (threadIdx.x == 0) {
    args.tokens[blockIdx.x] = best.token;
    args.logprobs[blockIdx.x] = best.value - top - logf(sum);
  }
}

}  // namespace

bool pick_cuda(const PickArgs& args, void* stream) {
  if (args.rows < 1 || args.vocab_size < 1) return false;
  return launch(pick_kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream, args);
}

}  // namespace vlm
