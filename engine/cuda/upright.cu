// SPDX-License-Identifier: LGPL-2.1-or-later
// A picture as it lies in memory to one as a viewer sees it, one thread for each pixel.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/picture_index.h"
#include "cuda/pixel_grid.h"

namespace vlm {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    upright_kernel(UprightArgs args, int width, int64_t pixels) {
  let_next_start();
  wait_for_inputs();
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= pixels) return;
  const Rgb colour =
      upright_pixel(args.layout, static_cast<int>(pixel % width), static_cast<int>(pixel / width));
  uint8_t* out = args.rgb + pixel * 3;
  out[0] = colour.red;
  out[1] = colour.green;
  out[2] = colour.blue;
}

}  // namespace

bool upright_cuda(const UprightArgs& args, void* stream) {
  const PictureLayout& layout = args.layout;
  const int64_t pixels = int64_t{layout.width} * layout.height;
  const int64_t blocks = grid_blocks(pixels, kThreads);
  if (blocks == 0) return false;
  return launch(upright_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream, args,
                layout.turn.swap ? layout.height : layout.width, pixels);
}

}  // namespace vlm
