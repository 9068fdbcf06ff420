// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "cuda/kernels.h"
#include "kernels/host_device.h"

namespace vlm {

inline constexpr int kTilePairs = 8;

VLM_HOST_DEVICE inline int ceil_div(int value, int by) {
  return (value + by - 1) / by;
}

struct OutputPair {
  int low, high;  ///< -1: none
};

/// Which outputs meet in one tile of 16 weight rows. A tile has eight pairs (i, i + 8); what has to
/// be computed from two outputs (gate and up, the halves of a head) is a pair.
struct TileMap {
  MatVecOutput output;
  int outputs;
  int half;      ///< from an output to its partner: of a head, of all (kGate)
  int per_head;  ///< tiles of a head (kRotate)
  int tiles;     ///< that cover all outputs

  VLM_HOST_DEVICE explicit TileMap(const GpuMatVecArgs& args)
      : output(args.output),
        outputs(static_cast<int>(args.matrix.outputs)),
        half(outputs / 2),
        per_head(1),
        tiles(ceil_div(outputs, 2 * kTilePairs)) {
    if (output != MatVecOutput::kRotate) return;
    const int head_dim = static_cast<int>(args.target.head_dim);
    half = head_dim / 2;
    per_head = ceil_div(half, kTilePairs);
    tiles = outputs / head_dim * per_head;
  }

  /// The outputs of pair `pair` of a tile.
  VLM_HOST_DEVICE OutputPair pair(int tile, int pair) const {
    if (output == MatVecOutput::kRotate) {
      const int head = tile / per_head;
      const int place = (tile - head * per_head) * kTilePairs + pair;
      if (place >= half) return {-1, -1};
      const int low = head * 2 * half + place;
      return {low, low + half};
    }
    if (output == MatVecOutput::kGate) {
      const int low = tile * kTilePairs + pair;
      if (low >= half) return {-1, -1};
      return {low, low + half};
    }
    const int low = tile * 2 * kTilePairs + pair, high = low + kTilePairs;
    return {low < outputs ? low : -1, high < outputs ? high : -1};
  }
};

}  // namespace vlm
