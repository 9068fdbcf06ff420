// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace vlm::avx512 {

constexpr int kOutputs = 4;     ///< of a block
constexpr int kMaxRows = 6;     ///< of x that meet a block at a time: their sums fit the registers
constexpr int kRowsInTurn = 3;  ///< of x that may meet one output after the other
constexpr int kQuarters = 4;
constexpr int64_t kSpan = 2048;   ///< inputs of a block at most: so that x stays in the L1 cache
constexpr int64_t kRowSpans = 8;  ///< of them, where one row of x meets whole rows of weights

/// kOutputs rows of weights, or a span of their inputs, and the rows of x to multiply them with.
struct Block {
  using Pointers = std::array<const std::byte*, kOutputs>;
  Pointers weights;    ///< of the first input
  const std::byte* x;  ///< for each step of inputs the rows one after the other
  int64_t inputs;
  float* sums;  ///< [rows][kOutputs], which the products are added to
  /// What is read later: each quarter of the steps sends for `ahead_lines` lines a step, from the
  /// quarter's place on, `ahead_step` bytes further at each.
  std::array<const std::byte*, kQuarters> ahead;
  int64_t ahead_lines, ahead_step;
};

/// How weights of one format meet x.
struct Method {
  int64_t step;          ///< inputs that are multiplied at a time
  int64_t step_bytes;    ///< of a row of x
  int64_t rows_at_once;  ///< outputs that several rows of x meet side by side; one meets one
  /// Writes `count` inputs of a row, times `inverse`, as `steps` steps every `stride` bytes, with
  /// zeros behind the last.
  void (*lay_out)(const float* x, int64_t count, float inverse, int64_t steps, std::byte* out,
                  int64_t stride);
  std::array<void (*)(const Block&), kMaxRows> multiply;  ///< for 1 to kMaxRows rows, if it can
  /// For 2 to kRowsInTurn rows, if it can: whole rows of weights, as one row of x meets them.
  std::array<void (*)(const Block&), kRowsInTurn - 1> in_turn;
};

extern const Method kExactBFloat16;  ///< x is bfloat16 as well; has_avx512_bfloat16()
extern const Method kBFloat16;
extern const Method kInt8;
extern const Method kInt4;     ///< for two rows and more
extern const Method kInt4Row;  ///< for one, with the same result

/// The largest absolute value; none where one of them is none or infinite. Reentrant.
float largest(const float* x, int64_t count);
/// Whether bfloat16 holds all values as they are. Reentrant.
bool fits_bfloat16(const float* x, int64_t count);

}  // namespace vlm::avx512
