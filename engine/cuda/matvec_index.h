// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "cuda/kernels.h"
#include "kernels/host_device.h"

namespace vlm {

// Which outputs meet in one tile of 16 weight rows. A tile has eight pairs (i, i + 8); what has to
// be computed from two outputs (gate and up, the halves of a head) is a pair.

inline constexpr int64_t kTilePairs = 8;

VLM_HOST_DEVICE inline int64_t ceil_div(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

/// Tiles that cover all outputs.
VLM_HOST_DEVICE inline int64_t tile_count(const GpuMatVecArgs& args) {
  const int64_t outputs = args.matrix.outputs;
  if (args.output == MatVecOutput::kRotate) {
    return outputs / args.target.head_dim * ceil_div(args.target.head_dim / 2, kTilePairs);
  }
  return ceil_div(outputs, 2 * kTilePairs);
}

struct OutputPair {
  int64_t low, high;  ///< -1: none
};

/// The outputs of pair `pair` of a tile.
VLM_HOST_DEVICE inline OutputPair output_pair(const GpuMatVecArgs& args, int64_t tile,
                                              int64_t pair) {
  const int64_t outputs = args.matrix.outputs;
  if (args.output == MatVecOutput::kRotate) {
    const int64_t half = args.target.head_dim / 2;
    const int64_t per_head = ceil_div(half, kTilePairs);
    const int64_t place = tile % per_head * kTilePairs + pair;
    if (place >= half) return {-1, -1};
    const int64_t first = tile / per_head * args.target.head_dim;
    return {first + place, first + half + place};
  }
  if (args.output == MatVecOutput::kGate) {
    const int64_t place = tile * kTilePairs + pair;
    if (place >= outputs / 2) return {-1, -1};
    return {place, outputs / 2 + place};
  }
  const int64_t low = tile * 2 * kTilePairs + pair, high = low + kTilePairs;
  return {low < outputs ? low : -1, high < outputs ? high : -1};
}

}  // namespace vlm
