// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/cpu_step.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

#include "base/ceil_div.h"
#include "kernels/bfloat16.h"
#include "kernels/convert.h"
#include "kernels/cpu.h"
#include "kernels/paged_attention.h"
#include "kernels/row_steps.h"

namespace vlm {
namespace {

constexpr int64_t kMostRows = LaidOutRows::kRowsWithoutMemory;
// Of a product, that a thread takes at a time: so many weights, and at most so many such pieces.
constexpr int64_t kWeightsPerPiece = int64_t{1} << 15;
constexpr int64_t kMostPieces = 32;
// Of a product, that a thread has at a time before they are rounded.
constexpr int64_t kSums = int64_t{1} << 12;
// Outputs that kernels multiply together.
constexpr int64_t kOutputsTogether = 4;
// Positions whose angles are found at once.
constexpr int64_t kAngles = 256;
// Scores of a past that grows take memory again only after so many tokens.
constexpr int64_t kGrowth = 512;

const uint16_t* halves(const at::Tensor& tensor) {
  return static_cast<const uint16_t*>(tensor.const_data_ptr());
}

template <typename T>
void grow(std::vector<T>& values, int64_t size) {
  if (static_cast<int64_t>(values.size()) < size) values.resize(static_cast<size_t>(size));
}

// Outputs.
int64_t piece_of(const FewRowsWeights& matrix) {
  const int64_t inputs = std::max<int64_t>(1, matrix.shape.inputs);
  return round_up(std::max<int64_t>(1, kWeightsPerPiece / inputs), kOutputsTogether);
}

int64_t pieces_of(const FewRowsWeights& matrix) {
  return ceil_div(matrix.shape.outputs, piece_of(matrix));
}

void widen_row(const uint16_t* from, int64_t size, float* to) {
  convert_values(KernelType::kBFloat16, from, KernelType::kFloat32, to, size);
}

void round_row(const float* sums, const uint16_t* bias, int64_t count, uint16_t* to) {
  with_vectors([&]() VLM_INLINE {
    if (bias == nullptr) {
      for (int64_t i = 0; i < count; ++i) narrow(sums[i], to + i);
    } else {
      for (int64_t i = 0; i < count; ++i) narrow(sums[i] + widen(bias[i]), to + i);
    }
  });
}

}  // namespace

struct alignas(64) CpuStep::Scratch {
  std::vector<float> wide;         // a row, before it is laid out
  std::vector<float> sums;         // [rows, some outputs]
  std::vector<uint16_t> gate, up;  // the same, rounded
  AttentionScratch attention;
};

struct CpuStep::Product {
  FewRowsWeights matrix;
  uint16_t* out;  // [rows, outputs]
};

std::unique_ptr<CpuStep> CpuStep::make(const Decoder& decoder, KvCache& cache,
                                       const StepBuffers& buffers) {
  const at::Tensor& table = decoder.embedding_table();
  if (!table.is_cpu() || table.scalar_type() != at::kBFloat16 || !table.is_contiguous() ||
      !gates_rows(decoder.config().activation) || decoder.config().head_dim % 2 != 0) {
    return nullptr;
  }
  return std::unique_ptr<CpuStep>(new CpuStep(decoder, cache, buffers));
}

CpuStep::CpuStep(const Decoder& decoder, KvCache& cache, const StepBuffers& buffers)
    : decoder_(decoder),
      config_(decoder.config()),
      cache_(cache),
      buffers_(buffers),
      q_size_(config_.heads * config_.head_dim),
      kv_size_(config_.kv_heads * config_.head_dim) {
  for (auto* rows : {&hidden_, &attended_, &activated_, &last_}) {
    *rows = matvec_families().front().make_rows();
  }
}

CpuStep::~CpuStep() = default;

bool CpuStep::takes(int64_t rows) const {
  if (rows < 1 || rows > kMostRows) return false;
  const Decoder::Layer& layer = decoder_.layers().front();
  // All layers are packed alike.
  for (const Linear* matrix : {layer.qkv.parts().data(), &layer.o, layer.gate_up.parts().data(),
                               &layer.down, &decoder_.lm_head()}) {
    if (!matrix->few_rows_weights(rows)) return false;
  }
  return true;
}

at::Tensor CpuStep::run() {
  rows_ = buffers_.rows();
  host_ = buffers_.host_rows();
  make_room();
  find_angles();
  team_.run([this](Team::Member& member) { work(member); });
  return logits_.narrow(0, 0, rows_);
}

void CpuStep::make_room() {
  grow(x_, rows_ * config_.hidden_size);
  grow(delta_, rows_ * config_.hidden_size);
  grow(q_, rows_ * q_size_);
  grow(k_, rows_ * kv_size_);
  grow(v_, rows_ * kv_size_);
  grow(mixed_, rows_ * q_size_);
  grow(inner_, rows_ * config_.intermediate_size);
  const Decoder::Layer& layer = decoder_.layers().front();
  hidden_->reset(rows_for(layer.qkv.parts()[0]), nullptr);
  attended_->reset(rows_for(layer.o), nullptr);
  activated_->reset(rows_for(layer.down), nullptr);
  last_->reset(rows_for(decoder_.lm_head()), nullptr);
  if (!logits_.defined() || logits_.size(0) < rows_) {
    logits_ = at::empty({rows_, config_.vocab_size}, at::kFloat);
  }
  kv_heads_at_once_ = kv_heads_at_once(attention_of(0), Team::threads());
  const int64_t widest = std::max({config_.hidden_size, q_size_, config_.intermediate_size});
  grow(scratch_, Team::threads());
  for (Scratch& scratch : scratch_) {
    grow(scratch.wide, widest);
    grow(scratch.sums, kSums);
    grow(scratch.gate, kSums);
    grow(scratch.up, kSums);
    scratch.attention.make_room(attention_of(0), round_up(host_.longest, kGrowth));
  }
}

void CpuStep::find_angles() {
  const int64_t last = *std::max_element(host_.positions, host_.positions + rows_);
  while (static_cast<int64_t>(angles_.size()) * kAngles <= last) {
    const int64_t first = static_cast<int64_t>(angles_.size()) * kAngles;
    const at::Tensor positions = at::arange(first, first + kAngles, at::kLong);
    const Rope::Angles all = decoder_.rope().angles(positions, positions.add(1));
    angles_.push_back(
        {all.cos.to(at::kBFloat16).contiguous(), all.sin.to(at::kBFloat16).contiguous()});
  }
}

CpuStep::Scratch& CpuStep::scratch_of(const Team::Member& member) {
  return scratch_[static_cast<size_t>(member.index())];
}

void CpuStep::work(Team::Member& member) {
  begin(member);
  const std::vector<Decoder::Layer>& layers = decoder_.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    attend(member, static_cast<int64_t>(i));
    add_and_normalize(member, layers[i].post_attention_norm, *hidden_);
    transform(member, layers[i]);
    const bool last = i + 1 == layers.size();
    add_and_normalize(member, last ? decoder_.final_norm() : layers[i + 1].input_norm,
                      last ? *last_ : *hidden_);
  }
  finish(member);
}

void CpuStep::begin(Team::Member& member) {
  const int64_t size = config_.hidden_size;
  member.share(rows_, 1, [&](int64_t row, int64_t) {
    std::copy_n(halves(decoder_.embedding_table()) + host_.ids[row] * size, size,
                x_.data() + row * size);
    normalize_row(scratch_of(member), row, false, decoder_.layers().front().input_norm, *hidden_);
  });
}

void CpuStep::normalize_row(Scratch& scratch, int64_t row, bool add, const at::Tensor& weight,
                            LaidOutRows& to) {
  const int64_t size = config_.hidden_size;
  uint16_t* delta = delta_.data() + row * size;
  // What was added is not needed any more, and leaves its place.
  add_norm_row(x_.data() + row * size, add ? delta : nullptr, halves(weight), size,
               config_.rms_norm_eps, delta);
  widen_row(delta, size, scratch.wide.data());
  to.lay_out(row, scratch.wide.data());
}

void CpuStep::add_and_normalize(Team::Member& member, const at::Tensor& weight, LaidOutRows& to) {
  member.share(rows_, 1, [&](int64_t row, int64_t) {
    normalize_row(scratch_of(member), row, true, weight, to);
  });
}

void CpuStep::lay_out(Team::Member& member, const std::vector<uint16_t>& x, int64_t size,
                      LaidOutRows& to) {
  member.share(rows_, 1, [&](int64_t row, int64_t) {
    Scratch& scratch = scratch_of(member);
    widen_row(x.data() + row * size, size, scratch.wide.data());
    to.lay_out(row, scratch.wide.data());
  });
}

// Outputs begin … end of all rows, which lie `stride` apart from `out` on.
void CpuStep::find_outputs(Scratch& scratch, const LaidOutRows& x, const FewRowsWeights& matrix,
                           int64_t begin, int64_t end, uint16_t* out, int64_t stride) const {
  const int64_t count = end - begin;
  float* sums = scratch.sums.data();
  x.multiply({matrix.shape, matrix.weights, begin, end, sums, count});
  const uint16_t* bias = matrix.bias == nullptr ? nullptr : matrix.bias + begin;
  for (int64_t row = 0; row < rows_; ++row) {
    round_row(sums + row * count, bias, count, out + row * stride);
  }
}

// Calls `work(first, last)` for the outputs of those of the matrix's pieces that are among begin …
// end, as many outputs at a time as a thread has room for.
template <typename Work>
void CpuStep::by_room(const FewRowsWeights& matrix, int64_t begin, int64_t end,
                      const Work& work) const {
  const int64_t room = kSums / rows_ / kOutputsTogether * kOutputsTogether;
  const int64_t last = std::min(matrix.shape.outputs, end * piece_of(matrix));
  for (int64_t first = std::max<int64_t>(0, begin) * piece_of(matrix); first < last;
       first += room) {
    work(first, std::min(last, first + room));
  }
}

void CpuStep::multiply(Team::Member& member, const LaidOutRows& x,
                       std::span<const Product> products) {
  int64_t pieces = 0;
  for (const Product& product : products) pieces += pieces_of(product.matrix);
  Scratch& scratch = scratch_of(member);
  member.share(pieces, kMostPieces, [&](int64_t begin, int64_t end) {
    for (const auto& [matrix, out] : products) {
      by_room(matrix, begin, end, [&, &matrix = matrix, &out = out](int64_t from, int64_t to) {
        find_outputs(scratch, x, matrix, from, to, out + from, matrix.shape.outputs);
      });
      begin -= pieces_of(matrix);
      end -= pieces_of(matrix);
    }
  });
}

RowsShape CpuStep::rows_for(const Linear& linear) const {
  const FewRowsWeights weights = matrix(linear);
  return {weights.shape.format, weights.shape.inputs, rows_, weights.in_bytes};
}

FewRowsWeights CpuStep::matrix(const Linear& linear) const {
  return *linear.few_rows_weights(rows_);
}

void CpuStep::attend(Team::Member& member, int64_t index) {
  const Decoder::Layer& layer = decoder_.layers()[static_cast<size_t>(index)];
  const std::vector<Linear>& qkv = layer.qkv.parts();
  multiply(
      member, *hidden_,
      std::array<Product, 3>{
          {{matrix(qkv[0]), q_.data()}, {matrix(qkv[1]), k_.data()}, {matrix(qkv[2]), v_.data()}}});
  const int64_t parts = ceil_div(config_.kv_heads, kv_heads_at_once_);
  member.share(rows_ * parts, 1, [&](int64_t part, int64_t) {
    const int64_t first = part % parts * kv_heads_at_once_;
    look_back(scratch_of(member), index, part / parts, first,
              std::min(kv_heads_at_once_, config_.kv_heads - first));
  });
  lay_out(member, mixed_, q_size_, *attended_);
  multiply(member, *attended_, std::array<Product, 1>{{{matrix(layer.o), delta_.data()}}});
}

PagedAttentionArgs CpuStep::attention_of(int64_t index) {
  PagedAttentionArgs args = attention_shape(config_, KernelType::kBFloat16);
  args.q = q_.data();
  args.k_cache = cache_.keys(index).const_data_ptr();
  args.v_cache = cache_.values(index).const_data_ptr();
  args.out = mixed_.data();
  args.slot_table = host_.slot_table;
  args.table_stride = host_.table_stride;
  args.lengths = host_.lengths;
  args.rows = rows_;
  return args;
}

// Some kv heads of a row: turns their keys and the queries that read them, adds the token to the
// cache, and mixes the values of all.
void CpuStep::look_back(Scratch& scratch, int64_t index, int64_t row, int64_t kv_head,
                        int64_t kv_heads) {
  const int64_t dim = config_.head_dim, group = config_.heads / config_.kv_heads;
  const int64_t head = row * config_.kv_heads + kv_head;
  const Rope::Angles& block = angles_[static_cast<size_t>(host_.positions[row] / kAngles)];
  const int64_t angle = host_.positions[row] % kAngles * dim;
  const uint16_t *cos = halves(block.cos) + angle, *sin = halves(block.sin) + angle;
  uint16_t* q = q_.data() + head * group * dim;
  rotate_row(q, cos, sin, kv_heads * group, dim, q);
  const auto cached = [&](const at::Tensor& all) {
    return static_cast<uint16_t*>(all.mutable_data_ptr()) + host_.slots[row] * kv_size_ +
           kv_head * dim;
  };
  rotate_row(k_.data() + head * dim, cos, sin, kv_heads, dim, cached(cache_.keys(index)));
  std::copy_n(v_.data() + head * dim, kv_heads * dim, cached(cache_.values(index)));
  paged_attention_part(attention_of(index), row, kv_head, kv_heads, scratch.attention);
}

void CpuStep::transform(Team::Member& member, const Decoder::Layer& layer) {
  const FewRowsWeights gate = matrix(layer.gate_up.parts()[0]);
  const FewRowsWeights up = matrix(layer.gate_up.parts()[1]);
  Scratch& scratch = scratch_of(member);
  member.share(pieces_of(gate), kMostPieces, [&](int64_t begin, int64_t end) {
    by_room(gate, begin, end, [&](int64_t from, int64_t to) {
      const int64_t count = to - from;
      find_outputs(scratch, *hidden_, gate, from, to, scratch.gate.data(), count);
      find_outputs(scratch, *hidden_, up, from, to, scratch.up.data(), count);
      for (int64_t row = 0; row < rows_; ++row) {
        gate_row(scratch.gate.data() + row * count, scratch.up.data() + row * count, count,
                 config_.activation, inner_.data() + row * config_.intermediate_size + from);
      }
    });
  });
  lay_out(member, inner_, config_.intermediate_size, *activated_);
  multiply(member, *activated_, std::array<Product, 1>{{{matrix(layer.down), delta_.data()}}});
}

void CpuStep::finish(Team::Member& member) {
  const FewRowsWeights head = matrix(decoder_.lm_head());
  Scratch& scratch = scratch_of(member);
  auto* logits = logits_.mutable_data_ptr<float>();
  member.share(pieces_of(head), kMostPieces, [&](int64_t begin, int64_t end) {
    by_room(head, begin, end, [&](int64_t from, int64_t to) {
      const int64_t count = to - from;
      find_outputs(scratch, *last_, head, from, to, scratch.gate.data(), count);
      for (int64_t row = 0; row < rows_; ++row) {
        widen_row(scratch.gate.data() + row * count, count,
                  logits + row * config_.vocab_size + from);
      }
    });
  });
}

}  // namespace vlm
