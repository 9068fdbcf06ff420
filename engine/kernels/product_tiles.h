// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/product.h"

#if defined(__x86_64__)

namespace vlm::tiles {

// Both factors are cut into tiles of 1 KiB: 16 outputs or 16 rows of x, times 32 inputs as
// bfloat16. Two tiles of each meet at a time.
constexpr int64_t kSide = 16;
constexpr int64_t kDepth = 32;
constexpr int64_t kSpan = 2 * kSide;
constexpr int64_t kRowBytes = kDepth * 2;  ///< of a tile of weights
constexpr int64_t kTileBytes = kSide * kRowBytes;
constexpr int64_t kStepBytes = 2 * kTileBytes;
constexpr int64_t kSums = kSpan * kSpan;

/// kSpan outputs times kSpan rows of x.
struct Block {
  const std::byte* weights;  ///< [32 outputs][steps][32 inputs]
  int64_t weights_stride;    ///< bytes from one output to the next
  const std::byte* x;        ///< [steps][2][16 pairs of inputs][16 rows][2 inputs]
  int64_t steps;
  int64_t row_tiles;  ///< 1 where the second 16 rows of x hold nothing
  bool more;          ///< adds to the sums, which otherwise are written
  float* sums;        ///< [2 of outputs][2 of rows][16 outputs][16 rows]
  /// What is read later: `ahead_rows` pieces of memory, `ahead_stride` bytes apart, are sent for,
  /// `ahead_step` bytes further in each step.
  const std::byte* ahead;
  int64_t ahead_rows, ahead_stride, ahead_step;
};

/// How a kind of processor multiplies blocks.
struct Unit {
  void (*begin)();  ///< before a thread's first block
  void (*end)();    ///< after its last
  void (*multiply)(const Block& block);
};
extern const Unit kAmx;     ///< has_matrix_units()
extern const Unit kAvx512;  ///< has_avx512_bfloat16()

/// Rows [first, first + count) of x, inputs [begin, begin + steps · kDepth), as kSpan rows of a
/// block has them; zeros beyond either end. count: 1 … kSpan.
void lay_out_x(const ProductArgs& args, int64_t first, int64_t count, int64_t begin, int64_t steps,
               std::byte* out);
/// The same of kSpan outputs from `first` on, `stride` bytes apart, without an int8 row's scale.
void lay_out_weights(const ProductArgs& args, int64_t first, int64_t begin, int64_t steps,
                     std::byte* out, int64_t stride);
/// Rounds a block's sums, scaled and with the bias, into y.
void finish(const ProductArgs& args, int64_t output, int64_t row, int64_t rows, const float* sums);

/// Asks the operating system for the matrix units, once. False where there are none. Reentrant.
bool claim_amx();

}  // namespace vlm::tiles

#endif
