// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/ceil_div.h"
#include "kernels/product.h"

#if defined(__x86_64__)

namespace vlm::tiles {

// Both factors are cut into tiles: 16 outputs or 16 rows of x, times the inputs of a step. Two
// tiles of each meet at a time.
constexpr int64_t kSide = 16;
constexpr int64_t kSpan = 2 * kSide;
constexpr int64_t kSums = kSpan * kSpan;

// Of bfloat16: tiles of 1 KiB.
constexpr int64_t kDepth = 32;             ///< inputs of a step
constexpr int64_t kRowBytes = kDepth * 2;  ///< of a tile of weights
constexpr int64_t kTileBytes = kSide * kRowBytes;
constexpr int64_t kStepBytes = 2 * kTileBytes;

/// Where the sums of an output with the 16 rows of a tile are among a block's, or behind each other
/// those of several blocks of outputs.
inline int64_t sums_at(int64_t output, int64_t row_tile) {
  return output / kSpan * kSums + (output % kSpan / kSide * 2 + row_tile) * kSide * kSide +
         output % kSide * kSide;
}

/// kSpan outputs times kSpan rows of x.
struct Block {
  const std::byte* weights;  ///< [32 outputs][steps][Layout::row_bytes]
  int64_t weights_stride;    ///< bytes from one output to the next
  const std::byte* x;        ///< [steps][Layout::step_bytes]
  int64_t steps;
  int64_t row_tiles;  ///< 1 where the second 16 rows of x hold nothing
  bool more;          ///< adds to the sums, which otherwise are written
  float* sums;        ///< [2 of outputs][2 of rows][16 outputs][16 rows]
  /// What is read later, for a unit that fetches: `ahead_rows` pieces of memory, `ahead_stride`
  /// bytes apart, are sent for, `ahead_step` bytes further in each step.
  const std::byte* ahead;
  int64_t ahead_rows, ahead_stride, ahead_step;
};

/// How the factors of one kind of numbers lie in a block.
struct Layout {
  int64_t depth;         ///< inputs of a step
  int64_t row_bytes;     ///< of one output's weights of a step
  int64_t step_bytes;    ///< of kSpan rows of x
  bool in_place;         ///< bfloat16 weights lie so themselves, if there are whole steps of them
  int64_t block_inputs;  ///< of weights that a thread lays out at a time
  /// Rows [first, first + count) of x, inputs [begin, begin + steps · depth), as kSpan rows of a
  /// block has them; zeros beyond either end. count: 1 … kSpan.
  void (*lay_out_x)(const ProductArgs& args, int64_t first, int64_t count, int64_t begin,
                    int64_t steps, std::byte* out);
  /// The same of kSpan outputs from `first` on, `stride` bytes apart, but for each row's scale.
  void (*lay_out_weights)(const ProductArgs& args, int64_t first, int64_t begin, int64_t steps,
                          std::byte* out, int64_t stride);
  float (*scale)(const PackedShape& shape, const std::byte* row);
};
extern const Layout kHalves;  ///< bfloat16

/// What the sums of kSpan outputs are multiplied by, and what is added then; 1 and 0 beyond the
/// last output.
struct Factors {
  alignas(64) std::array<float, kSpan> scales, biases;

  Factors() = default;
  /// Of the outputs from `output` on.
  Factors(const Layout& layout, const ProductArgs& args, int64_t output);
};

/// How a kind of processor multiplies blocks.
struct Unit {
  const Layout& layout;
  bool fetches = false;     ///< sends for Block::ahead
  void (*begin)() = [] {};  ///< before a thread's first block
  void (*end)() = [] {};    ///< after its last
  void (*multiply)(const Block& block);
  /// Rounds a block's sums, scaled and with the bias, into y.
  void (*finish)(const ProductArgs& args, const Factors& factors, int64_t output, int64_t row,
                 int64_t rows, const float* sums);
};
extern const Unit kAmx;        ///< has_matrix_units()
extern const Unit kAvx512;     ///< has_avx512_bfloat16()
extern const Unit kBytes;      ///< has_avx512_bfloat16(); weights in 8 or 4 bits
extern const Unit kAvx2Wide;   ///< has_avx2(); bfloat16 weights
extern const Unit kAvx2Words;  ///< has_avx2(); weights in 8 or 4 bits
extern const Unit kAvx2Bytes;  ///< has_avx2(); weights in 4 bits, x in 8

/// The scale of an int8 row, 1 of others.
float weight_scale(const PackedShape& shape, const std::byte* row);

/// Unit::finish where has_avx512_bfloat16().
void finish_avx512(const ProductArgs& args, const Factors& factors, int64_t output, int64_t row,
                   int64_t rows, const float* sums);

/// Asks the operating system for the matrix units, once. False where there are none. Reentrant.
bool claim_amx();

}  // namespace vlm::tiles

#endif
