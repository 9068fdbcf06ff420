// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

namespace vlm {

/// Blocks of `threads` threads that have a thread for each of `pixels`; 0 where there are none, or
/// more than a grid takes.
inline int64_t grid_blocks(int64_t pixels, int threads) {
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  const int64_t blocks = pixels / threads + (pixels % threads != 0 ? 1 : 0);
  return pixels < 1 || blocks > kMostBlocks ? 0 : blocks;
}

}  // namespace vlm
