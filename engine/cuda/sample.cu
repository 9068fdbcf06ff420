// SPDX-License-Identifier: LGPL-2.1-or-later
// One block for each row.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/sample_row.h"

namespace vlm {
namespace {

struct DeviceBlock {
  uint64_t* prefix;
  uint64_t* warps;  // sums

  __device__ static constexpr int threads() { return kSampleThreads; }

  template <typename Work>
  __device__ void phase(const Work& work) {
    work(static_cast<int>(threadIdx.x));
    __syncthreads();
  }

  template <typename Value>
  __device__ void scan(const Value& value) {
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kWarpSize, warp = thread / kWarpSize;
    uint64_t sum = value(thread);
#pragma unroll
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const uint64_t before = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += before;
    }
    if (lane == kWarpSize - 1) warps[warp] = sum;
    __syncthreads();
    for (int before = 0; before < warp; ++before) sum += warps[before];
    prefix[thread + 1] = sum;
    if (thread == 0) prefix[0] = 0;
    __syncthreads();
  }
};

__global__ void __launch_bounds__(kSampleThreads) sample_kernel(SampleArgs args) {
  __shared__ SampleShared shared;
  __shared__ uint64_t warps[kSampleThreads / kWarpSize];
  let_next_start();
  wait_for_inputs();
  DeviceBlock block = {shared.prefix, warps};
  sample_row(block, shared, args, blockIdx.x);
}

}  // namespace

bool sample_cuda(const SampleArgs& args, void* stream) {
  if (args.rows < 1 || args.vocab_size < 1 || args.vocab_size > kMostSampledIds) return false;
  return launch(sample_kernel, dim3(static_cast<unsigned>(args.rows)), kSampleThreads, 0, stream,
                args);
}

}  // namespace vlm
