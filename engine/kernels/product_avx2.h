// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/product_tiles.h"

#if defined(__x86_64__)

namespace vlm::tiles {

// Numbers as products have them where the processor has none of bfloat16: of each tile of rows,
// [inputs or pairs of them][16 rows].

// In float32: one tile behind the other, since in turn step by step they would meet in half of the
// sets of the innermost cache.
constexpr int64_t kWideDepth = 32;
constexpr int64_t kWideTileBytes = kWideDepth * kSide * 4;
constexpr int64_t kWideStepBytes = 2 * kWideTileBytes;
extern const Layout kWide;  ///< bfloat16 weights

// In 16 bits: both tiles of each step, behind them a scale of each row.
constexpr int64_t kWordDepth = 128;
constexpr int64_t kWordPairs = kWordDepth / 2;
constexpr int64_t kWordRowBytes = kWordDepth * 2;
constexpr int64_t kWordTileBytes = kWordPairs * kSide * 4;
constexpr int64_t kWordStepBytes = 2 * (kWordTileBytes + kSide * 4);
// What the largest number of a step's row of x becomes, and of a row of int4's weights: the sum of
// a step's products fits 32 bits.
constexpr int kMostOfX = 16383;
constexpr int kMostOfInt4 = 1023;
static_assert(int64_t{kMostOfX} * kMostOfInt4 * kWordDepth < int64_t{1} << 31);
extern const Layout kWords;  ///< weights in 8 or 4 bits

// Weights in 4 bits with x in 8: of each group of inputs, those with even numbers first. Of each
// output a step's levels, 0 … 15, then its groups' scales.
constexpr int64_t kByteDepth = 128;
constexpr int64_t kByteGroups = kByteDepth / PackedShape::kGroup;
constexpr int64_t kByteQuads = PackedShape::kGroup / 4;
constexpr int64_t kByteRowBytes = kByteDepth + kByteGroups * 4;
/// A tile of rows of a step.
struct ByteTile {
  int8_t values[kByteGroups][kByteQuads][kSide][4];
  float scales[kByteGroups][kSide];
  /// What the levels, 8 too large, add to the sums of products, taken back.
  int32_t shifts[kByteGroups][kSide];
};
extern const Layout kBytesByGroup;

}  // namespace vlm::tiles

#endif
