// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

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

constexpr int64_t kWeightsPerTask = 1 << 15;
constexpr int64_t kInputsPerTask = 1 << 15;  // of x that one thread lays out
// Of x: so much stays in the L2 cache; where it is more, so many outputs meet a span of it in turn.
constexpr int64_t kCachedBytes = 1 << 18;
constexpr int64_t kOutputsPerSpan = 64;

// Some rows of x, laid out for one method.
struct Tile {
  const Method* method;
  const int64_t* rows;  // their numbers
  int64_t count;
  int64_t sums;        // rows of the tiles before
  int64_t ahead_step;  // of its blocks
  std::byte* x;

  int64_t row_bytes(int64_t inputs) const {
    const int64_t steps = (inputs + method->step - 1) / method->step;
    return steps * method->step_bytes;
  }
};

// Brings the bytes into the innermost cache.
void fetch(const std::byte* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

class Product {
 public:
  Product(const MatVecArgs& args, bool bfloat16);
  void multiply(int64_t begin, int64_t end) const;

 private:
  struct Place {
    int64_t output, input;
  };

  // Of weights.
  int64_t bytes_of(int64_t inputs) const { return inputs * run_bytes_ / PackedShape::kRun; }
  const std::byte* weights(int64_t output, int64_t input) const {
    return args_.weights + output * row_bytes_ + bytes_of(input);
  }
  int64_t sort_exact();
  void add_tiles(const Method& method, int64_t begin, int64_t end);
  void place_tiles();
  void lay_out(const Tile& tile);
  void multiply_block(Place at, Place next, int64_t end, float* sums) const;
  void finish(int64_t first, int64_t end, const float* sums) const;

  const MatVecArgs& args_;
  const PackedFormat format_ = args_.shape.format;
  const int64_t inputs_ = args_.shape.padded_inputs();
  const int64_t row_bytes_ = args_.shape.row_bytes();
  const int64_t run_bytes_ = format_ == PackedFormat::kBFloat16 ? PackedShape::kRun * 2
                             : format_ == PackedFormat::kInt8   ? PackedShape::kRun
                                                                : PackedShape::kRunBytes;
  // Of inputs, that a block has. One row's sums are taken apart at each kSpan all the same.
  const int64_t span_ = args_.rows == 1 ? kSpan * avx512::kRowSpans : kSpan;
  // Whether weights are asked for before they are met.
  const bool asks_ = args_.rows > 1 || !brings_streams_itself();
  std::vector<int64_t> order_;  // of the rows in the tiles
  std::vector<float> scales_;   // of the rows of x
  std::vector<Tile> tiles_;
  at::Tensor memory_;  // of the tiles' x
};

Product::Product(const MatVecArgs& args, bool bfloat16)
    : args_(args), scales_(static_cast<size_t>(args.rows), 1) {
  for (int64_t row = 0; row < args.rows; ++row) order_.push_back(row);
  const int64_t exact = bfloat16 && format_ == PackedFormat::kBFloat16 ? sort_exact() : 0;
  add_tiles(avx512::kExactBFloat16, 0, exact);
  add_tiles(format_ == PackedFormat::kBFloat16 ? avx512::kBFloat16
            : format_ == PackedFormat::kInt8   ? avx512::kInt8
            : args_.rows == 1                  ? avx512::kInt4Row
                                               : avx512::kInt4,
            exact, args.rows);
  place_tiles();
  const int64_t grain = std::max<int64_t>(1, kInputsPerTask / (kMaxRows * inputs_ + 1));
  at::parallel_for(0, static_cast<int64_t>(tiles_.size()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) lay_out(tiles_[static_cast<size_t>(i)]);
  });
}

// Brings rows that bfloat16 holds to the front, and returns how many. (How a row is multiplied may
// depend on nothing but the row.)
int64_t Product::sort_exact() {
  const int64_t count = args_.shape.inputs;
  const auto end = std::stable_partition(order_.begin(), order_.end(), [&](int64_t row) {
    return avx512::fits_bfloat16(args_.x + row * count, count);
  });
  return end - order_.begin();
}

// Rows begin … end of the order in tiles of about the same size.
void Product::add_tiles(const Method& method, int64_t begin, int64_t end) {
  for (int64_t tiles = (end - begin + kMaxRows - 1) / kMaxRows; tiles > 0; --tiles) {
    const int64_t count = (end - begin + tiles - 1) / tiles;
    tiles_.push_back({&method, order_.data() + begin, count, begin, 0, nullptr});
    begin += count;
  }
}

void Product::place_tiles() {
  int64_t bytes = 0;
  for (const Tile& tile : tiles_) bytes += tile.count * tile.row_bytes(inputs_);
  memory_ = at::empty({bytes}, at::kByte);
  auto* x = static_cast<std::byte*>(memory_.mutable_data_ptr());
  const auto count = static_cast<int64_t>(tiles_.size());
  for (Tile& tile : tiles_) {
    tile.x = x;
    x += tile.count * tile.row_bytes(inputs_);
    const Method& method = *tile.method;
    const int64_t at_once = tile.count == 1 ? 1 : method.rows_at_once;
    tile.ahead_step = bytes_of(method.step) * at_once / count;
  }
}

void Product::lay_out(const Tile& tile) {
  const int64_t count = args_.shape.inputs;
  const Method& method = *tile.method;
  for (int64_t i = 0; i < tile.count; ++i) {
    const float* x = args_.x + tile.rows[i] * count;
    float inverse = 1;
    if (format_ != PackedFormat::kBFloat16) {
      // What is no number makes every sum of the row none either.
      const float scale = avx512::largest(x, count) / kMatVecTop;
      inverse = std::isnormal(scale) ? 1 / scale : 0;
      scales_[static_cast<size_t>(tile.rows[i])] = scale;
    }
    const int64_t steps = tile.row_bytes(inputs_) / method.step_bytes;
    method.lay_out(x, count, inverse, steps, tile.x + i * method.step_bytes,
                   tile.count * method.step_bytes);
  }
}

// The outputs and inputs from `at` on times all rows, while those at `next` come from memory.
void Product::multiply_block(Place at, Place next, int64_t end, float* sums) const {
  Block block;
  block.inputs = std::min(span_, inputs_ - at.input);
  for (int64_t i = 0; i < kOutputs; ++i) {
    // Beyond the last output it is multiplied again, for nothing.
    block.weights[static_cast<size_t>(i)] = weights(std::min(at.output + i, end - 1), at.input);
  }
  // What was sent for has come near, yet not into the innermost cache all of it. (In order, as one
  // row of x meets it, processors bring that themselves.)
  if (format_ == PackedFormat::kBFloat16 && args_.rows > 1) {
    for (const std::byte* from : block.weights) fetch(from, bytes_of(block.inputs));
  }
  // The tiles share in sending for the next block, one output after the other: memory is read
  // faster in order.
  const auto count = static_cast<int64_t>(tiles_.size());
  const int64_t share = bytes_of(block.inputs) / count;
  int64_t output = next.output, part = 0;
  for (const Tile& tile : tiles_) {
    for (const std::byte*& ahead : block.ahead) {
      ahead = weights(std::min(output, end - 1), next.input) + part * share;
      if (++part == count) part = 0, ++output;
    }
    block.ahead_step = tile.ahead_step;
    block.ahead_lines = asks_ ? (tile.ahead_step + 63) / 64 : 0;
    block.x = tile.x + at.input / tile.method->step * tile.method->step_bytes * tile.count;
    block.sums = sums + tile.sums * kOutputs;
    tile.method->multiply[static_cast<size_t>(tile.count - 1)](block);
  }
}

void Product::finish(int64_t first, int64_t end, const float* sums) const {
  std::array<float, kOutputs> scales;
  scales.fill(1);
  const int64_t count = std::min<int64_t>(kOutputs, end - first);
  for (int64_t i = 0; format_ == PackedFormat::kInt8 && i < count; ++i) {
    std::memcpy(&scales[static_cast<size_t>(i)], weights(first + i, inputs_), sizeof(float));
  }
  for (size_t i = 0; i < order_.size(); ++i, sums += kOutputs) {
    const float scale = scales_[static_cast<size_t>(order_[i])];
    float* y = args_.y + order_[i] * args_.shape.outputs + first;
    std::array<float, kOutputs> values;
    for (size_t k = 0; k < kOutputs; ++k) values[k] = sums[k] * scales[k] * scale;
    std::copy_n(values.begin(), count, y);
  }
}

void Product::multiply(int64_t begin, int64_t end) const {
  const int64_t width = memory_.numel() > kCachedBytes ? kOutputsPerSpan : kOutputs;
  const int64_t block_sums = args_.rows * kOutputs;
  std::vector<float> sums(static_cast<size_t>(block_sums * width / kOutputs));
  for (int64_t first = begin; first < end; first += width) {
    const int64_t last = std::min(end, first + width);
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (int64_t input = 0; input < inputs_; input += span_) {
      float* to = sums.data();
      for (int64_t output = first; output < last; output += kOutputs, to += block_sums) {
        const Place next = output + kOutputs < last  ? Place{output + kOutputs, input}
                           : input + span_ < inputs_ ? Place{first, input + span_}
                                                     : Place{last, 0};
        multiply_block({output, input}, next, end, to);
      }
    }
    const float* from = sums.data();
    for (int64_t output = first; output < last; output += kOutputs, from += block_sums) {
      finish(output, last, from);
    }
  }
}

void run(const MatVecArgs& args, bool bfloat16) {
  if (args.rows == 0) return;
  const Product product(args, bfloat16);
  const int64_t grain = std::max<int64_t>(kOutputs, kWeightsPerTask / (args.shape.inputs + 1));
  at::parallel_for(0, args.shape.outputs, grain,
                   [&](int64_t begin, int64_t end) { product.multiply(begin, end); });
}

}  // namespace

void matvec_avx512(const MatVecArgs& args) {
  run(args, false);
}

void matvec_avx512_bfloat16(const MatVecArgs& args) {
  run(args, true);
}

}  // namespace vlm

#endif
