// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "base/ceil_div.h"
#include "kernels/cpu.h"
#include "kernels/matvec_avx512_blocks.h"
#include "kernels/matvec_kernels.h"

#if defined(__x86_64__)

namespace vlm {
namespace {

using avx512::Block;
using avx512::kMaxRows;
using avx512::kOutputs;
using avx512::kQuarters;
using avx512::kSpan;
using avx512::Method;

// Of x: so much stays in the L2 cache; where it is more, so many outputs meet a span of it in turn.
constexpr int64_t kCachedBytes = 1 << 18;
constexpr int64_t kOutputsPerSpan = 64;

// Of x: what leaves the L1 cache room for weights that are read in order.
constexpr int64_t kLargestInTurn = 1 << 14;
// Of weights: what a cache next to a core may hold. From there several rows of x meet four outputs
// side by side in less time.
constexpr int64_t kLargestCached = int64_t{1} << 21;
constexpr size_t kStackSums = LaidOutRows::kRowsWithoutMemory * kOutputsPerSpan;

// Some rows of x, laid out for one method.
struct Tile {
  const Method* method;
  int64_t count;
  int64_t sums;        // rows of the tiles before
  int64_t ahead_step;  // of its blocks
  std::byte* x;
};

// Brings the bytes into the innermost cache.
void fetch(const std::byte* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

int64_t steps_of(const Method& method, int64_t inputs) {
  return ceil_div(inputs, method.step);
}

class Rows final : public LaidOutRows {
 public:
  explicit Rows(bool bfloat16) : bfloat16_(bfloat16) {}

  void reset(const RowsShape& shape, const float* x) override;
  void lay_out(int64_t row, const float* x) override;
  void multiply(const MatVecPart& part) const override;

 private:
  using Way = void (*)(const Block&);
  struct Place {
    int64_t output, input;
  };
  // Where a row lies, and what its sums are times.
  struct Row {
    int64_t tile, in_tile;
    float scale;
  };

  // Of weights.
  int64_t bytes_of(int64_t inputs) const { return inputs * run_bytes_ / PackedShape::kRun; }
  const std::byte* weights(const MatVecPart& part, int64_t output, int64_t input) const {
    return part.weights + output * row_bytes_ + bytes_of(input);
  }
  int64_t sort_exact(const float* x);
  void add_tiles(const Method& method, int64_t begin, int64_t end);
  void place_tiles();
  void multiply_block(const MatVecPart& part, Place at, Place next, float* sums) const;
  Way way_in_turn(const Tile& tile) const;
  void multiply_in_turn(const MatVecPart& part) const;
  void finish(const MatVecPart& part, int64_t first, const float* sums) const;

  const bool bfloat16_;
  PackedFormat format_ = PackedFormat::kBFloat16;
  int64_t inputs_ = 0, padded_ = 0, row_bytes_ = 0, run_bytes_ = 0;
  // Of inputs, that a block has. One row's sums are taken apart at each kSpan all the same.
  int64_t span_ = 0;
  // Whether weights are asked for before they are met.
  bool asks_ = false;
  std::vector<int64_t> order_;  // of the rows in the tiles
  std::vector<Row> rows_;
  std::vector<Tile> tiles_;
  Way in_turn_ = nullptr;  // of the only tile, where it can
  int64_t bytes_ = 0;      // of the tiles' x
  at::Tensor memory_;      // as much or more
};

void Rows::reset(const RowsShape& of, const float* x) {
  const PackedFormat format = of.format;
  const int64_t inputs = of.inputs, rows = of.rows;
  const PackedShape shape = {format, 0, inputs};
  format_ = format;
  inputs_ = inputs;
  padded_ = shape.padded_inputs();
  row_bytes_ = shape.row_bytes();
  run_bytes_ = format == PackedFormat::kBFloat16 ? PackedShape::kRun * 2
               : format == PackedFormat::kInt8   ? PackedShape::kRun
                                                 : PackedShape::kRunBytes;
  span_ = rows == 1 ? kSpan * avx512::kRowSpans : kSpan;
  asks_ = rows > 1 || !brings_streams_itself();
  order_.clear();
  for (int64_t row = 0; row < rows; ++row) order_.push_back(row);
  rows_.resize(static_cast<size_t>(rows));
  const bool halves = bfloat16_ && format == PackedFormat::kBFloat16;
  const int64_t exact = !halves ? 0 : x == nullptr ? rows : sort_exact(x);
  tiles_.clear();
  add_tiles(avx512::kExactBFloat16, 0, exact);
  add_tiles(format == PackedFormat::kBFloat16 ? avx512::kBFloat16
            : format == PackedFormat::kInt8   ? avx512::kInt8
            : rows == 1                       ? avx512::kInt4Row
                                              : avx512::kInt4,
            exact, rows);
  place_tiles();
  in_turn_ = tiles_.size() == 1 && padded_ <= kSpan * avx512::kRowSpans
                 ? way_in_turn(tiles_.front())
                 : nullptr;
}

// How a tile meets one output after the other; null where that is not faster than several.
Rows::Way Rows::way_in_turn(const Tile& tile) const {
  if (tile.count == 1) return tile.method->multiply.front();
  const bool can = tile.count <= avx512::kRowsInTurn && brings_streams_itself();
  if (!can || bytes_ > kLargestInTurn) return nullptr;
  return tile.method->in_turn[static_cast<size_t>(tile.count - 2)];
}

// Brings rows that bfloat16 holds to the front, and returns how many. (How a row is multiplied may
// depend on nothing but the row.)
int64_t Rows::sort_exact(const float* x) {
  const auto end = std::stable_partition(order_.begin(), order_.end(), [&](int64_t row) {
    return avx512::fits_bfloat16(x + row * inputs_, inputs_);
  });
  return end - order_.begin();
}

// Rows begin … end of the order in tiles of about the same size.
void Rows::add_tiles(const Method& method, int64_t begin, int64_t end) {
  for (int64_t tiles = ceil_div(end - begin, kMaxRows); tiles > 0; --tiles) {
    const int64_t count = ceil_div(end - begin, tiles);
    for (int64_t i = 0; i < count; ++i) {
      rows_[static_cast<size_t>(order_[static_cast<size_t>(begin + i)])] = {
          static_cast<int64_t>(tiles_.size()), i, 1};
    }
    tiles_.push_back({&method, count, begin, 0, nullptr});
    begin += count;
  }
}

void Rows::place_tiles() {
  const auto bytes = [&](const Tile& tile) {
    return tile.count * steps_of(*tile.method, padded_) * tile.method->step_bytes;
  };
  bytes_ = 0;
  for (const Tile& tile : tiles_) bytes_ += bytes(tile);
  if (!memory_.defined() || memory_.numel() < bytes_) memory_ = at::empty({bytes_}, at::kByte);
  auto* x = static_cast<std::byte*>(memory_.mutable_data_ptr());
  const auto count = static_cast<int64_t>(tiles_.size());
  for (Tile& tile : tiles_) {
    tile.x = x;
    x += bytes(tile);
    const Method& method = *tile.method;
    const int64_t at_once = tile.count == 1 ? 1 : method.rows_at_once;
    tile.ahead_step = bytes_of(method.step) * at_once / count;
  }
}

void Rows::lay_out(int64_t row, const float* x) {
  Row& place = rows_[static_cast<size_t>(row)];
  const Tile& tile = tiles_[static_cast<size_t>(place.tile)];
  const Method& method = *tile.method;
  float inverse = 1;
  if (format_ != PackedFormat::kBFloat16) {
    // What is no number makes every sum of the row none either.
    place.scale = avx512::largest(x, inputs_) / kMatVecTop;
    inverse = std::isnormal(place.scale) ? 1 / place.scale : 0;
  }
  method.lay_out(x, inputs_, inverse, steps_of(method, padded_),
                 tile.x + place.in_tile * method.step_bytes, tile.count * method.step_bytes);
}

// The outputs and inputs from `at` on times all rows, while those at `next` come from memory.
void Rows::multiply_block(const MatVecPart& part, Place at, Place next, float* sums) const {
  Block block;
  block.inputs = std::min(span_, padded_ - at.input);
  for (int64_t i = 0; i < kOutputs; ++i) {
    // Beyond the last output it is multiplied again, for nothing.
    block.weights[static_cast<size_t>(i)] =
        weights(part, std::min(at.output + i, part.end - 1), at.input);
  }
  // What was sent for has come near, yet not into the innermost cache all of it. (In order, as one
  // row of x meets it, processors bring that themselves.)
  if (format_ == PackedFormat::kBFloat16 && rows_.size() > 1) {
    for (const std::byte* from : block.weights) fetch(from, bytes_of(block.inputs));
  }
  // The tiles share in sending for the next block, one output after the other: memory is read
  // faster in order.
  const auto count = static_cast<int64_t>(tiles_.size());
  const int64_t share = bytes_of(block.inputs) / count;
  int64_t output = next.output, piece = 0;
  for (const Tile& tile : tiles_) {
    for (const std::byte*& ahead : block.ahead) {
      ahead = weights(part, std::min(output, part.end - 1), next.input) + piece * share;
      if (++piece == count) piece = 0, ++output;
    }
    block.ahead_step = tile.ahead_step;
    block.ahead_lines = asks_ ? (tile.ahead_step + 63) / 64 : 0;
    block.x = tile.x + at.input / tile.method->step * tile.method->step_bytes * tile.count;
    block.sums = sums + tile.sums * kOutputs;
    tile.method->multiply[static_cast<size_t>(tile.count - 1)](block);
  }
}

void Rows::finish(const MatVecPart& part, int64_t first, const float* sums) const {
  std::array<float, kOutputs> scales;
  scales.fill(1);
  const int64_t count = std::min<int64_t>(kOutputs, part.end - first);
  for (int64_t i = 0; format_ == PackedFormat::kInt8 && i < count; ++i) {
    std::memcpy(&scales[static_cast<size_t>(i)], weights(part, first + i, padded_), sizeof(float));
  }
  for (const int64_t row : order_) {
    const float scale = rows_[static_cast<size_t>(row)].scale;
    float* y = part.y + row * part.y_stride + first - part.begin;
    std::array<float, kOutputs> values;
    for (size_t k = 0; k < kOutputs; ++k) values[k] = sums[k] * scales[k] * scale;
    std::copy_n(values.begin(), count, y);
    sums += kOutputs;
  }
}

// Whole rows of weights: what a block needs is next to nothing.
void Rows::multiply_in_turn(const MatVecPart& part) const {
  const Tile& tile = tiles_.front();
  std::array<float, kOutputs * avx512::kRowsInTurn> sums;
  Block block;
  block.x = tile.x;
  block.inputs = padded_;
  block.sums = sums.data();
  block.ahead_step = tile.ahead_step;
  block.ahead_lines = asks_ ? (tile.ahead_step + 63) / 64 : 0;
  for (int64_t first = part.begin; first < part.end; first += kOutputs) {
    for (int64_t i = 0; i < kOutputs; ++i) {
      const auto at = static_cast<size_t>(i);
      block.weights[at] = weights(part, std::min(first + i, part.end - 1), 0);
      block.ahead[at] = weights(part, std::min(first + kOutputs + i, part.end - 1), 0);
    }
    sums.fill(0);
    in_turn_(block);
    finish(part, first, sums.data());
  }
}

void Rows::multiply(const MatVecPart& part) const {
  const bool from_memory = part.shape.outputs * row_bytes_ > kLargestCached;
  if (in_turn_ != nullptr && (rows_.size() == 1 || from_memory)) return multiply_in_turn(part);
  const int64_t width = bytes_ > kCachedBytes ? kOutputsPerSpan : kOutputs;
  const auto block_sums = static_cast<int64_t>(rows_.size()) * kOutputs;
  const auto all_sums = static_cast<size_t>(block_sums * width / kOutputs);
  std::array<float, kStackSums> on_stack;
  std::vector<float> on_heap(all_sums > kStackSums ? all_sums : 0);
  float* sums = on_heap.empty() ? on_stack.data() : on_heap.data();
  for (int64_t first = part.begin; first < part.end; first += width) {
    const int64_t last = std::min(part.end, first + width);
    std::fill_n(sums, all_sums, 0.0F);
    for (int64_t input = 0; input < padded_; input += span_) {
      float* to = sums;
      for (int64_t output = first; output < last; output += kOutputs, to += block_sums) {
        const Place next = output + kOutputs < last  ? Place{output + kOutputs, input}
                           : input + span_ < padded_ ? Place{first, input + span_}
                                                     : Place{last, 0};
        multiply_block(part, {output, input}, next, to);
      }
    }
    const float* from = sums;
    for (int64_t output = first; output < last; output += kOutputs, from += block_sums) {
      finish(part, output, from);
    }
  }
}

}  // namespace

std::unique_ptr<LaidOutRows> make_avx512_rows() {
  return std::make_unique<Rows>(false);
}

std::unique_ptr<LaidOutRows> make_avx512_bfloat16_rows() {
  return std::make_unique<Rows>(true);
}

}  // namespace vlm

#endif
