// SPDX-License-Identifier: LGPL-2.1-or-later
// One block for each row, two passes: the best token, then the sum of exponentials below it.
#include <cmath>

#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 32;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kInFlight = 8;  // logits of a thread
constexpr int kMostBans = 64;

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

// Of one row, in shared memory.
struct Bans {
  const int64_t* ids;
  int64_t count;

  __device__ bool has(int64_t token) const {
    for (int64_t i = 0; i < count; ++i) {
      if (ids[i] == token) return true;
    }
    return false;
  }
};

__global__ void __launch_bounds__(kThreads) pick_kernel(PickArgs args) {
  __shared__ float values[kWarps], tops[kWarps], parts[kWarps];
  __shared__ int64_t tokens[kWarps], banned[kMostBans];
  let_next_start();
  wait_for_inputs();
  if (threadIdx.x < args.banned_size) {
    banned[threadIdx.x] = args.banned[blockIdx.x * args.banned_size + threadIdx.x];
  }
  __syncthreads();
  const Bans bans = {banned, args.banned_size};
  const float* logits = args.logits + static_cast<int64_t>(blockIdx.x) * args.vocab_size;
  Best best = {-INFINITY, args.vocab_size - 1};
  float top = -INFINITY;
  for (int64_t first = threadIdx.x; first < args.vocab_size; first += kThreads * kInFlight) {
    float loaded[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int64_t token = first + i * kThreads;
      loaded[i] = token < args.vocab_size ? logits[token] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int64_t token = first + i * kThreads;
      top = fmaxf(top, loaded[i]);
      // Looked up only where it matters, which is seldom.
      if (loaded[i] > best.value && !bans.has(token)) best = {loaded[i], token};
    }
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
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < args.vocab_size; i += kThreads) sum += __expf(logits[i] - top);
  sum = block_sum<kWarps>(sum, parts);
  if (threadIdx.x == 0) {
    args.tokens[blockIdx.x] = best.token;
    args.logprobs[blockIdx.x] = best.value - top - logf(sum);
  }
}

}  // namespace

bool pick_cuda(const PickArgs& args, void* stream) {
  if (args.rows < 1 || args.vocab_size < 1 || args.banned_size > kMostBans) return false;
  return launch(pick_kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream, args);
}

}  // namespace vlm
