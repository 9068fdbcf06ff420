// SPDX-License-Identifier: LGPL-2.1-or-later
// One thread for each row.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/sample_row.h"

namespace vlm {
namespace {

constexpr int kThreads = 64;

__global__ void __launch_bounds__(kThreads) advance_kernel(AdvanceArgs args) {
  // The next ones may not start before this one's end: attention reads lengths and slots ahead of
  // its wait.
  wait_for_inputs();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= args.rows) return;
  const int32_t slot = args.upcoming[row];
  const bool goes_on = slot >= 0;
  const int64_t position = goes_on ? args.positions[row] + 1 : 0;
  const int32_t place = goes_on ? slot : args.spare_slot;
  args.ids[row] = goes_on ? args.tokens[row] : 0;
  args.positions[row] = position;
  args.lengths[row] = position + 1;
  args.slots[row] = place;
  args.cached_lengths[row] = static_cast<int32_t>(position + 1);
  args.slot_table[row * args.table_stride + position] = place;
  if (goes_on && args.table != nullptr) {
    go_on_from(args.table[row], args.seen + row * args.seen_stride, args.tokens[row]);
  }
}

}  // namespace

bool advance_cuda(const AdvanceArgs& args, void* stream) {
  if (args.rows < 1) return false;
  const auto blocks = static_cast<unsigned>((args.rows + kThreads - 1) / kThreads);
  return launch(advance_kernel, dim3(blocks), kThreads, 0, stream, args);
}

}  // namespace vlm
