// SPDX-License-Identifier: LGPL-2.1-or-later
// A picture to an input of the tower: resized across, then along, and put in its place. One thread
// for each pixel of the result.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/pixel_grid.h"
#include "cuda/resample_index.h"

namespace vlm {
namespace {

constexpr int kThreads = 256;

__device__ int64_t own_pixel() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads) across_kernel(AcrossArgs args) {
  let_next_start();
  wait_for_inputs();
  const int64_t pixel = own_pixel();
  if (pixel < args.rows * args.columns) {
    across_pixel(args, pixel % args.columns, pixel / args.columns);
  }
}

__global__ void __launch_bounds__(kThreads) along_kernel(AlongArgs args) {
  let_next_start();
  wait_for_inputs();
  const int64_t pixel = own_pixel();
  if (pixel < args.out_width * args.out_height) {
    along_pixel(args, pixel % args.out_width, pixel / args.out_width);
  }
}

}  // namespace

bool across_cuda(const AcrossArgs& args, void* stream) {
  const int64_t blocks = grid_blocks(args.rows * args.columns, kThreads);
  return blocks > 0 &&
         launch(across_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args);
}

bool along_cuda(const AlongArgs& args, void* stream) {
  const int64_t blocks = grid_blocks(args.out_width * args.out_height, kThreads);
  return blocks > 0 &&
         launch(along_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args);
}

}  // namespace vlm
