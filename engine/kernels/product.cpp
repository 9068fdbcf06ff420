// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/product.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

#include "base/ceil_div.h"
#include "kernels/cpu.h"
#include "kernels/product_avx2.h"
#include "kernels/product_tiles.h"
#include "kernels/shares.h"

namespace vlm {

#if defined(__x86_64__)

namespace {

using namespace tiles;

// A thread lays out so many outputs' weights at a time, for all rows of a pass to meet: with the
// layout's inputs half of the L2 cache that its processors have at least.
constexpr int64_t kBlockOutputs = 256;
// Of so few panels memory is the limit: bfloat16 weights are multiplied where they lie, and all
// inputs of a few outputs are read before the next, since memory is read faster in order.
constexpr int64_t kFewPanels = 4;
constexpr int64_t kFewOutputs = 32;
// Rows of a pass, which bounds the memory of x and of the sums.
constexpr int64_t kPassRows = 1024;
// Of memory in order one line of so many bytes is sent for: the processor brings those between by
// itself, and each that is sent for holds one of a core's few buffers until it comes.
constexpr int64_t kSentFor = 512;
constexpr int64_t kLineBytes = 64;

std::byte* data(const at::Tensor& memory) {
  return static_cast<std::byte*>(memory.mutable_data_ptr());
}

// Sends for memory in order: tiles ask for 16 rows at a time, which comes slower.
void fetch(const std::byte* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kSentFor) __builtin_prefetch(from + i, 0, 2);
}

// Some spans of outputs, and the inputs from a step on.
struct Place {
  int64_t first, count, step;
};

// Some rows of x, laid out chunk of inputs by chunk, times all weights of all products.
class Pass {
 public:
  Pass(const std::vector<ProductArgs>& all, const Unit& unit, int64_t first_row, int64_t rows)
      : all_(all), unit_(unit), first_row_(first_row), rows_(rows) {
    x_ = at::empty({panels_ * steps_ * layout_.step_bytes}, at::kByte);
    scratch_ = at::empty({at::get_num_threads() * scratch_bytes()}, at::kByte);
  }

  void run() {
    Shares panels(panels_, 1);
    panels.each([&](int64_t panel) { lay_out(panel); });
    int64_t count = 0;
    for (const ProductArgs& one : all_) count += ceil_div(one.shape.outputs, kSpan);
    Shares spans(count, block_spans_);
    spans.spread([&] { multiply(spans); });
  }

 private:
  // Outputs of one of the products.
  struct Part {
    const ProductArgs* args;
    int64_t first;

    int64_t left() const { return args->shape.outputs - first; }
  };
  Part part(int64_t span) const {
    for (const ProductArgs& one : all_) {
      const int64_t spans = ceil_div(one.shape.outputs, kSpan);
      if (span < spans) return {&one, span * kSpan};
      span -= spans;
    }
    return {&all_.back(), all_.back().shape.outputs};
  }

  static Place place(Shares::Piece spans) { return {spans.first, spans.count, 0}; }

  // What the thread gets of the outputs.
  void multiply(Shares& spans) const {
    std::byte* own = data(scratch_) + at::get_thread_num() * scratch_bytes();
    auto* sums = reinterpret_cast<float*>(own + weights_bytes());
    Place at = place(spans.claim());
    if (at.count > 0 && in_place(part(at.first))) {
      fetch(weights_of(part(at.first), 0), kSpan * row_bytes_);
    }
    unit_.begin();
    while (at.count > 0) {
      const Place later = place(spans.claim());
      for (; at.step < steps_; at.step += chunk_) {
        const Place next = {at.first, at.count, at.step + chunk_};
        multiply_chunk(at, next.step < steps_ ? next : later, own, sums);
      }
      at = later;
    }
    unit_.end();
  }

  // Each thread's: weights that are laid out, then sums.
  int64_t weights_bytes() const { return block_spans_ * kSpan * stride_of(chunk_); }
  int64_t scratch_bytes() const {
    const int64_t blocks = chunks() > 1 ? panels_ * block_spans_ : 1;
    return weights_bytes() + blocks * kSums * static_cast<int64_t>(sizeof(float));
  }
  int64_t chunks() const { return ceil_div(steps_, chunk_); }
  // Of the chunk that begins at `step`.
  int64_t steps_of(int64_t step) const { return std::min(chunk_, steps_ - step); }
  std::byte* panel_of(int64_t panel, int64_t step) const {
    return data(x_) + (step * panels_ + panel * steps_of(step)) * layout_.step_bytes;
  }
  int64_t rows_of(int64_t panel) const { return std::min(kSpan, rows_ - panel * kSpan); }

  void lay_out(int64_t panel) const {
    for (int64_t step = 0; step < steps_; step += chunk_) {
      layout_.lay_out_x(args_, first_row_ + panel * kSpan, rows_of(panel), step * layout_.depth,
                        steps_of(step), panel_of(panel, step));
    }
  }

  const std::byte* weights_of(const Part& outputs, int64_t step) const {
    return outputs.args->weights + outputs.first * row_bytes_ + step * step_bytes_;
  }

  // Weights at `at` times x, while those at `next` come from memory.
  void multiply_chunk(Place at, Place next, std::byte* weights, float* sums) const {
    const int64_t steps = steps_of(at.step);
    for (int64_t i = 0; i < at.count; ++i) {
      const Part outputs = part(at.first + i);
      if (in_place(outputs)) continue;
      layout_.lay_out_weights(*outputs.args, outputs.first, at.step * layout_.depth, steps,
                              weights + i * kSpan * stride_of(steps), stride_of(steps));
    }
    Block block{.steps = steps, .more = at.step > 0};
    const bool last = at.step + steps == steps_;
    std::array<Factors, kBlockOutputs / kSpan> factors;
    for (int64_t i = 0; last && i < at.count; ++i) {
      const Part outputs = part(at.first + i);
      factors[static_cast<size_t>(i)] = Factors(layout_, *outputs.args, outputs.first);
    }
    const int64_t share = ceil_div(next.count * kSpan, panels_ * at.count);
    for (int64_t panel = 0; panel < panels_; ++panel) {
      block.x = panel_of(panel, at.step);
      block.row_tiles = ceil_div(rows_of(panel), kSide);
      for (int64_t i = 0; i < at.count; ++i) {
        const Part outputs = part(at.first + i);
        if (unit_.fetches) send_for(next, (panel * at.count + i) * share, share, block);
        block.weights = in_place(outputs) ? weights_of(outputs, at.step)
                                          : weights + i * kSpan * stride_of(steps);
        block.weights_stride = in_place(outputs) ? row_bytes_ : stride_of(steps);
        block.sums = chunks() > 1 ? sums + (panel * at.count + i) * kSums : sums;
        unit_.multiply(block);
        if (last) {
          unit_.finish(*outputs.args, factors[static_cast<size_t>(i)], outputs.first,
                       first_row_ + panel * kSpan, rows_of(panel), block.sums);
        }
      }
    }
  }

  // Outputs of the place, `count` from its `first` on, while the block is multiplied.
  void send_for(Place place, int64_t first, int64_t count, Block& block) const {
    block.ahead_rows = 0;
    if (first >= place.count * kSpan) return;
    Part outputs = part(place.first + first / kSpan);
    outputs.first += first % kSpan;
    count = std::min(count, outputs.left());
    if (count <= 0) return;
    block.ahead = weights_of(outputs, place.step);
    block.ahead_rows = count;
    block.ahead_stride = row_bytes_;
    block.ahead_step = step_bytes_;
    if (chunks() > 1) return;
    // Whole rows are one piece of memory.
    block.ahead_step = count * row_bytes_ / block.steps;
    block.ahead_rows = ceil_div(block.ahead_step, kSentFor);
    block.ahead_stride = kSentFor;
  }

  // Of weights that are laid out; one line more, so that rows do not all meet in a few sets of the
  // innermost cache.
  int64_t stride_of(int64_t steps) const { return steps * layout_.row_bytes + kLineBytes; }
  bool in_place(const Part& outputs) const {
    return few_ && layout_.in_place && args_.shape.format == PackedFormat::kBFloat16 &&
           args_.shape.inputs % layout_.depth == 0 && outputs.left() >= kSpan;
  }

  const std::vector<ProductArgs>& all_;
  const ProductArgs& args_ = all_.front();  // for what they have in common
  const Unit& unit_;
  const Layout& layout_ = unit_.layout;
  const int64_t first_row_, rows_;
  const int64_t panels_ = ceil_div(rows_, kSpan);
  const int64_t steps_ = ceil_div(args_.shape.inputs, layout_.depth);
  const bool few_ = panels_ <= kFewPanels;
  // Chunks of about the same size; the fewer the outputs, the more inputs of each fit the cache.
  const int64_t most_steps_ =
      layout_.block_inputs * (few_ ? kBlockOutputs / kFewOutputs : 1) / layout_.depth;
  const int64_t chunk_ = ceil_div(steps_, ceil_div(steps_, most_steps_));
  const int64_t block_spans_ = (few_ ? kFewOutputs : kBlockOutputs) / kSpan;
  const int64_t row_bytes_ = args_.shape.row_bytes();
  // Of weights as they come.
  const int64_t step_bytes_ = args_.shape.format == PackedFormat::kBFloat16 ? layout_.depth * 2
                              : args_.shape.format == PackedFormat::kInt8   ? layout_.depth
                                                                            : layout_.depth / 2;
  at::Tensor x_, scratch_;
};

void run(const std::vector<ProductArgs>& all, const Unit& unit) {
  const int64_t rows = all.front().rows;
  const int64_t passes = ceil_div(rows, kPassRows);
  for (int64_t row = 0; row < rows;) {
    const int64_t count = std::min(rows - row, round_up(ceil_div(rows, passes), kSpan));
    Pass(all, unit, row, count).run();
    row += count;
  }
}

void product_amx(const std::vector<ProductArgs>& all) {
  run(all, kAmx);
}

void product_avx512(const std::vector<ProductArgs>& all) {
  run(all, kAvx512);
}

void product_bytes(const std::vector<ProductArgs>& all) {
  run(all, kBytes);
}

void product_avx2(const std::vector<ProductArgs>& all) {
  run(all, all.front().shape.format == PackedFormat::kBFloat16 ? kAvx2Wide : kAvx2Words);
}
constexpr ProductRounding kWordRounding = {kWordDepth, kMostOfX, kMostOfInt4};
constexpr ProductFamily kAvx2 = {"avx2", product_avx2, kWordRounding, kWordRounding};

void product_avx2_bytes(const std::vector<ProductArgs>& all) {
  if (all.front().shape.format != PackedFormat::kInt4) return product_avx2(all);
  run(all, kAvx2Bytes);
}
constexpr ProductFamily kAvx2OfBytes = {
    "avx2-bytes", product_avx2_bytes, kWordRounding, {PackedShape::kGroup, kMostOfByte, 0}};

}  // namespace

bool has_matrix_units() {
  return claim_amx();
}

#else

bool has_matrix_units() {
  return false;
}

#endif

const std::vector<ProductFamily>& product_families() {
  static const std::vector<ProductFamily> families = [] {
    std::vector<ProductFamily> able;
#if defined(__x86_64__)
    if (claim_amx()) able.push_back({"amx", product_amx});
    if (has_avx512_bfloat16()) able.push_back({"avx512", product_avx512});
    // Between the two libtorch's own products of bfloat16 are the faster ones.
    if (has_avx512_bfloat16() || (has_avx2() && !has_avx512_words())) able.push_back(kAvx2);
#endif
    return able;
  }();
  return families;
}

const ProductFamily* byte_products() {
#if defined(__x86_64__)
  static const ProductRounding rounding = {kBytes.layout.depth, kMostOfByte, kMostOfByte};
  static const ProductFamily bytes = {"avx512-vnni", product_bytes, rounding, rounding};
  if (has_avx512_bfloat16()) return &bytes;
  if (!product_families().empty()) return &kAvx2OfBytes;
#endif
  return nullptr;
}

bool gains_by_bytes() {
  return byte_products() != nullptr && !has_matrix_units();
}

}  // namespace vlm
