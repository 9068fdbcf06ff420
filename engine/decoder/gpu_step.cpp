// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/gpu_step.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "base/device.h"
#include "cuda/tensor_ops.h"

namespace vlm {
namespace {

constexpr const char* kDoing = "running the language model";
// Blocks of decode attention that a multiprocessor runs at once: pasts are cut so that as many fill
// it, and no more.
constexpr int64_t kBlocksAtOnce = 2;
constexpr int64_t kMostSplits = 64;

int64_t splits_for(const TextConfig& config, int64_t rows, int64_t processors) {
  const int64_t blocks = std::max<int64_t>(1, rows * config.kv_heads);
  return std::clamp<int64_t>(kBlocksAtOnce * processors / blocks, 1, kMostSplits);
}

constexpr int64_t kMostHeadDim = 256;  // of the attention kernels
// Ids that a row may be banned from without help from the host.
constexpr int64_t kBans = kMostSampleBans;

bool packed(const Decoder& decoder) {
  return decoder.lm_head().gpu_matrix().packed;
}

}  // namespace

std::unique_ptr<GpuStep> GpuStep::make(const Decoder& decoder, KvCache& cache,
                                       const StepBuffers& buffers, int64_t max_rows) {
  const at::Tensor& table = decoder.embedding_table();
  const CudaModule* module = module_for(table);
  const int64_t head_dim = decoder.config().head_dim;
  if (module == nullptr || head_dim % 2 != 0 || head_dim > kMostHeadDim) return nullptr;
  // Packed weights need a matrix instruction of 16-bit types.
  const GpuInfo info = module->info(table.device().index());
  if (info.compute_major == 0) return nullptr;
  const bool matrix_units = info.compute_major >= 8 && table.scalar_type() != at::kFloat &&
                            decoder.config().hidden_size % 8 == 0 &&
                            decoder.config().heads * head_dim % 8 == 0 &&
                            decoder.config().intermediate_size % 8 == 0;
  if (packed(decoder) && !matrix_units) return nullptr;
  return std::unique_ptr<GpuStep>(new GpuStep(decoder, cache, buffers, max_rows, table.options()));
}

GpuStep::GpuStep(const Decoder& decoder, KvCache& cache, const StepBuffers& buffers,
                 int64_t max_rows, at::TensorOptions options)
    : decoder_(decoder),
      cache_(cache),
      buffers_(buffers),
      module_(*module_for(decoder.embedding_table())),
      type_(*kernel_type(decoder.embedding_table().scalar_type())),
      info_(module_.info(decoder.embedding_table().device().index())),
      stream_(current_stream(decoder.embedding_table().device())),
      max_rows_(max_rows),
      table_(max_rows, decoder.config().vocab_size, decoder.embedding_table().device()) {
  const TextConfig& config = decoder.config();
  const int64_t q_size = config.heads * config.head_dim;
  const int64_t kv_size = config.kv_heads * config.head_dim;
  const auto rows_of = [&](int64_t size) { return at::empty({max_rows, size}, options); };
  x_ = rows_of(config.hidden_size);
  normed_ = rows_of(config.hidden_size);
  qkv_ = rows_of(q_size + 2 * kv_size);
  q_ = rows_of(q_size);
  mixed_ = rows_of(q_size);
  gate_up_ = rows_of(2 * config.intermediate_size);
  inner_ = rows_of(config.intermediate_size);
  delta_ = rows_of(config.hidden_size);
  narrow_logits_ = rows_of(config.vocab_size);
  logits_ = at::empty({max_rows, config.vocab_size}, options.dtype(at::kFloat));

  // No sequence has more tokens than the cache has slots.
  const int64_t context = std::clamp<int64_t>(context_length(config), 1, cache.keys(0).size(0));
  const at::Tensor positions = at::arange(context, options.dtype(at::kLong));
  angles_ = decoder.rope().angles(positions, positions.add(1));
  angles_.cos = angles_.cos.to(options.dtype()).contiguous();
  angles_.sin = angles_.sin.to(options.dtype()).contiguous();

  int64_t floats = 1;
  for (int64_t rows = 1; rows <= max_rows; ++rows) {
    SplitAttentionArgs args;
    args.base.rows = rows;
    args.base.heads = config.heads;
    args.base.head_dim = config.head_dim;
    args.splits = splits_for(config, rows, info_.processors);
    floats = std::max(floats, args.floats());
  }
  partials_ = at::empty({floats}, options.dtype(at::kFloat));
  arrivals_ = at::zeros({max_rows * config.heads}, options.dtype(at::kInt));
  banned_ = DeviceBuffer::make({max_rows, kBans}, at::kLong, x_.device());
  banned_.host.fill_(-1);
  banned_.send(max_rows);
  constexpr auto kPickBytes = static_cast<int64_t>(sizeof(int64_t) + sizeof(float));
  picked_ = at::empty({max_rows * kPickBytes}, options.dtype(at::kByte));
  for (Outcome& outcome : outcomes_) {
    outcome.picked =
        at::empty(picked_.sizes(), at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    outcome.upcoming = DeviceBuffer::make({max_rows}, at::kInt, x_.device());
    outcome.event = module_.make_event();
    require(outcome.event != nullptr, kDoing);
  }
}

GpuStep::~GpuStep() {
  module_.synchronize(stream_);  // a step that nobody asked for may still run
  for (const auto& [kind, graph] : graphs_) {
    if (graph != nullptr) module_.destroy_graph(graph);
  }
  for (const Outcome& outcome : outcomes_) {
    if (outcome.event != nullptr) module_.destroy_event(outcome.event);
  }
}

int32_t GpuStep::spare_slot() const {
  return static_cast<int32_t>(cache_.keys(0).size(0) - 1);
}

int64_t GpuStep::bucket(int64_t rows) const {
  int64_t size = 1;
  while (size < rows) size *= 2;
  return std::min(size, max_rows_);
}

bool GpuStep::pick_likeliest(const std::vector<const std::vector<int64_t>*>& lists) {
  sampled_ = false;
  const auto fits = [](const auto* list) {
    return list == nullptr || static_cast<int64_t>(list->size()) <= kBans;
  };
  if (!std::all_of(lists.begin(), lists.end(), fits)) return false;
  const int64_t cleared = std::max(banned_rows_, static_cast<int64_t>(lists.size()));
  auto* ids = banned_.host.mutable_data_ptr<int64_t>();
  std::fill_n(ids, cleared * kBans, -1);
  banned_rows_ = 0;
  for (size_t row = 0; row < lists.size(); ++row) {
    if (lists[row] == nullptr || lists[row]->empty()) continue;
    std::copy(lists[row]->begin(), lists[row]->end(), ids + static_cast<int64_t>(row) * kBans);
    banned_rows_ = static_cast<int64_t>(row) + 1;
  }
  if (cleared > 0) banned_.send(cleared);
  return true;
}

bool GpuStep::pick(const std::vector<Choice>& choices) {
  sampled_ = table_.fill(choices, buffers_.rows());
  return sampled_;
}

GpuStep::Ticket GpuStep::run() {
  rows_ = buffers_.rows();
  start();
  Outcome& mine = outcome(++last_);
  mine.picked.copy_(picked_, /*non_blocking=*/true);
  require(module_.record_event(mine.event, stream_), kDoing);
  return last_;
}

GpuStep::Ticket GpuStep::run_on(const std::vector<int32_t>& upcoming) {
  const Outcome& before = outcome(last_);
  auto* slots = before.upcoming.host.mutable_data_ptr<int32_t>();
  std::fill_n(slots, rows_, -1);
  std::copy(upcoming.begin(), upcoming.end(), slots);
  before.upcoming.send(rows_);
  AdvanceArgs args = buffers_.advance_args();
  args.tokens = static_cast<const int64_t*>(picked_.const_data_ptr());
  args.upcoming = before.upcoming.device.const_data_ptr<int32_t>();
  args.spare_slot = spare_slot();
  if (sampled_) table_.add_to(args);
  require(module_.advance(args, stream_), kDoing);
  return run();
}

// The first run of a bucket is an ordinary one, in which libtorch allocates what it keeps; what it
// did is recorded then.
void GpuStep::start() {
  const std::pair<int64_t, bool> kind = {rows_, sampled_};
  const auto found = graphs_.find(kind);
  if (found != graphs_.end() && found->second != nullptr) {
    if (module_.launch_graph(found->second, stream_)) return;
    // Where memory is too short for that, the step itself may still run; a lost GPU tells below.
    module_.destroy_graph(std::exchange(found->second, nullptr));
  }
  enqueue(rows_);
  if (found != graphs_.end()) return;  // it could not be recorded
  if (!module_.begin_capture(stream_)) {
    graphs_[kind] = nullptr;
    return;
  }
  try {
    enqueue(rows_);
  } catch (...) {
    module_.destroy_graph(module_.end_capture(stream_));
    throw;
  }
  graphs_[kind] = module_.end_capture(stream_);
}

at::Tensor GpuStep::logits() const {
  return logits_.narrow(0, 0, rows_);
}

GpuStep::Picks GpuStep::picks(Ticket ticket) {
  const Outcome& asked = outcome(ticket);
  require(module_.wait_for_event(asked.event), kDoing);
  const auto* bytes = static_cast<const std::byte*>(asked.picked.const_data_ptr());
  return {
      reinterpret_cast<const int64_t*>(bytes),
      reinterpret_cast<const float*>(bytes + max_rows_ * static_cast<int64_t>(sizeof(int64_t)))};
}

void GpuStep::enqueue(int64_t rows) {
  EmbedArgs embed;
  embed.table = decoder_.embedding_table().const_data_ptr();
  embed.ids = buffers_.ids().const_data_ptr<int64_t>();
  embed.out = x_.mutable_data_ptr();
  embed.rows = rows;
  embed.size = decoder_.config().hidden_size;
  embed.type = type_;
  require(module_.embed(embed, stream_), kDoing);
  int64_t index = 0;
  for (const Decoder::Layer& layer : decoder_.layers()) {
    attend(layer, index++, rows);
    transform(layer, rows);
  }
  finish(rows);
}

// Whether our kernels take this product; fills what all of them need.
bool GpuStep::few_rows(const Linear& linear, int64_t rows, GpuMatVecArgs& args) const {
  args.matrix = linear.gpu_matrix();
  args.rows = rows;
  args.type = type_;
  args.eps = static_cast<float>(decoder_.config().rms_norm_eps);
  return rows <= kFewRowsOnGpu && type_ != KernelType::kFloat32 && info_.compute_major >= 8 &&
         args.matrix.inputs % 8 == 0;
}

at::Tensor GpuStep::normalize(const at::Tensor& weight, int64_t rows) {
  const at::Tensor normed = normed_.narrow(0, 0, rows);
  require(
      gpu_add_norm(x_.narrow(0, 0, rows), {}, weight, decoder_.config().rms_norm_eps, {}, normed),
      kDoing);
  return normed;
}

// x += linear(input).
void GpuStep::add_product(const Linear& linear, const at::Tensor& input, int64_t rows) {
  GpuMatVecArgs args;
  if (few_rows(linear, rows, args)) {
    args.x = input.const_data_ptr();
    args.out = x_.mutable_data_ptr();
    args.output = MatVecOutput::kAdd;
    if (module_.matvec(args, stream_)) return;
  }
  const at::Tensor delta = delta_.narrow(0, 0, rows);
  require(linear.forward_into(input.narrow(0, 0, rows), delta), kDoing);
  x_.narrow(0, 0, rows).add_(delta);
}

void GpuStep::attend(const Decoder::Layer& layer, int64_t index, int64_t rows) {
  const TextConfig& config = decoder_.config();
  const RotateTarget target =
      rotate_target(config, angles_.cos, angles_.sin, buffers_.positions(), buffers_.slots(),
                    cache_.keys(index), cache_.values(index));
  GpuMatVecArgs args;
  const Linear& qkv = layer.qkv.joined();
  bool done = false;
  if (few_rows(qkv, rows, args)) {
    args.out = q_.mutable_data_ptr();
    args.output = MatVecOutput::kRotate;
    args.target = target;
    done = normalized_product(args, layer.input_norm, rows);
  }
  if (!done) {
    const at::Tensor all = qkv_.narrow(0, 0, rows);
    require(qkv.forward_into(normalize(layer.input_norm, rows), all), kDoing);
    const auto heads = [&](int64_t first, int64_t count) {
      return all.narrow(1, first * config.head_dim, count * config.head_dim)
          .view({rows, count, config.head_dim});
    };
    const at::Tensor q = heads(0, config.heads);
    require(gpu_rotate_store(q, heads(config.heads, config.kv_heads),
                             heads(config.heads + config.kv_heads, config.kv_heads), target),
            kDoing);
    q_.narrow(0, 0, rows).view(q.sizes()).copy_(q);
  }
  look_back(index, rows);
  add_product(layer.o, mixed_, rows);
}

// The product of the normalized x: both in one kernel where that has room for the rows.
bool GpuStep::normalized_product(GpuMatVecArgs& args, const at::Tensor& norm_weight, int64_t rows) {
  args.x = x_.const_data_ptr();
  args.norm_weight = norm_weight.const_data_ptr();
  if (rows <= kNormRowsOnGpu && module_.matvec(args, stream_)) return true;
  args.x = normalize(norm_weight, rows).const_data_ptr();
  args.norm_weight = nullptr;
  return module_.matvec(args, stream_);
}

void GpuStep::look_back(int64_t index, int64_t rows) {
  const TextConfig& config = decoder_.config();
  SplitAttentionArgs args;
  args.base = attention_args(config, q_, cache_.keys(index), cache_.values(index),
                             buffers_.cached(), mixed_, type_);
  args.splits = splits_for(config, rows, info_.processors);
  args.partials = partials_.mutable_data_ptr<float>();
  args.arrivals = arrivals_.mutable_data_ptr<int32_t>();
  if (module_.split_attention(args, stream_)) return;
  require(module_.paged_attention(args.base, stream_), kDoing);
}

void GpuStep::transform(const Decoder::Layer& layer, int64_t rows) {
  const TextConfig& config = decoder_.config();
  const Linear& gate_up = layer.gate_up.joined();
  GpuMatVecArgs args;
  bool done = false;
  if (few_rows(gate_up, rows, args)) {
    args.out = inner_.mutable_data_ptr();
    args.output = MatVecOutput::kGate;
    args.function = gate_function(config.activation);
    done = normalized_product(args, layer.post_attention_norm, rows);
  }
  if (!done) {
    const at::Tensor both = gate_up_.narrow(0, 0, rows);
    require(gate_up.forward_into(normalize(layer.post_attention_norm, rows), both), kDoing);
    require(gpu_gate(both.narrow(1, 0, config.intermediate_size),
                     both.narrow(1, config.intermediate_size, config.intermediate_size),
                     config.activation, inner_.narrow(0, 0, rows)),
            kDoing);
  }
  add_product(layer.down, inner_, rows);
}

void GpuStep::finish(int64_t rows) {
  GpuMatVecArgs args;
  bool done = false;
  if (few_rows(decoder_.lm_head(), rows, args)) {
    args.out = logits_.mutable_data_ptr();
    args.output = MatVecOutput::kLogits;
    done = normalized_product(args, decoder_.final_norm(), rows);
  }
  if (!done) {
    const at::Tensor narrow = narrow_logits_.narrow(0, 0, rows);
    require(decoder_.lm_head().forward_into(normalize(decoder_.final_norm(), rows), narrow),
            kDoing);
    logits_.narrow(0, 0, rows).copy_(narrow);
  }
  pick_tokens(rows);
}

void GpuStep::pick_tokens(int64_t rows) {
  auto* tokens = reinterpret_cast<int64_t*>(picked_.mutable_data_ptr());
  auto* logprobs = reinterpret_cast<float*>(static_cast<std::byte*>(picked_.mutable_data_ptr()) +
                                            max_rows_ * static_cast<int64_t>(sizeof(int64_t)));
  if (sampled_) {
    SampleArgs sample = table_.sample_args();
    sample.logits = logits_.const_data_ptr<float>();
    sample.tokens = tokens;
    sample.logprobs = logprobs;
    sample.rows = rows;
    require(module_.sample(sample, stream_), kDoing);
    return;
  }
  PickArgs pick;
  pick.logits = logits_.const_data_ptr<float>();
  pick.banned = banned_.device.const_data_ptr<int64_t>();
  pick.banned_size = kBans;
  pick.tokens = tokens;
  pick.logprobs = logprobs;
  pick.rows = rows;
  pick.vocab_size = decoder_.config().vocab_size;
  require(module_.pick(pick, stream_), kDoing);
}

}  // namespace vlm
