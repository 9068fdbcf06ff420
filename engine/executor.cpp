// SPDX-License-Identifier: LGPL-2.1-or-later
#include "executor.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/util/Exception.h>
#include <torch/version.h>
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11
#include <c10/core/CachingDeviceAllocator.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "base/compute_threads.h"
#include "base/device.h"
#include "base/failure.h"
#include "base/huge_memory.h"
#include "base/reused_memory.h"
#include "base/translated.h"
#include "decoder/cpu_step.h"
#include "decoder/decoder.h"
#include "decoder/gpu_step.h"
#include "decoder/run_ahead.h"
#include "decoder/step_buffers.h"
#include "fusion/fusion.h"
#include "kernels/product.h"
#include "kernels/whole_attention.h"
#include "loader/tensors.h"
#include "preprocess/gpu_pictures.h"
#include "projector/merge.h"
#include "projector/projector.h"
#include "sampler/sampler.h"
#include "scheduler/thread_count.h"
#include "trace.h"
#include "vision/tower.h"
#include "vlm/names.h"

namespace vlm {
namespace {

// What reads its weights so often is worth large pages, which are read faster than small ones and
// the file's mapping, and which take time to get: more than one description is worth.
constexpr int64_t kStepsBeforeMoves = 128;
// Of the cache, behind those that sequences may have.
constexpr int64_t kSpareSlots = 1;

struct TorchImageEmbeds : ImageEmbeds {
  std::vector<at::Tensor> pictures;  ///< each [tokens, hidden_size]
};

// Once the weights are loaded.
MemoryDemand memory_demand(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                           int threads, const TensorSource& source) {
  const auto element_size = static_cast<int64_t>(c10::elementSize(dtype));
  const bool masked = !(device.is_cpu() && dtype == at::kBFloat16 && has_whole_attention());
  MemoryDemand demand = activation_demand(config, element_size, masked);
  demand.on_cpu = device.is_cpu();
  if (demand.on_cpu) {
    demand.past += threads * config.text.heads * AttentionScratch::kBytesPerScore;
  }
  demand.context = context_length(config.text);
  demand.available = available_memory(device);
  demand.mapped = source.mapped_bytes();
  demand.slot = KvCache::slot_bytes(config.text, element_size);
  return demand;
}

ExecutorLimits limits_for(const MemoryDemand& demand, int64_t prompt_chunk) {
  Result<ExecutorLimits> limits = choose_limits(demand, prompt_chunk);
  if (!limits) throw Failure(limits.error());
  return *limits;
}

// How matrices are packed; nothing: they are not.
struct Packings {
  std::optional<Packing> tower;  // and projector
  std::optional<Packing> decoder;

  // Products in 8 bits are a way of processors that are faster at them: elsewhere only the
  // decoder's weights are rounded.
  static Packings choose(Quantization quantization, at::Device device, DType dtype) {
    if (quantization == Quantization::kNone) return {};
    const bool in_bytes =
        (quantization == Quantization::kW8A8 || quantization == Quantization::kW4A8) &&
        device.is_cpu() && dtype == DType::kBFloat16 && gains_by_bytes();
    const bool int4 = quantization == Quantization::kInt4 || quantization == Quantization::kW4A8;
    Packings all;
    all.decoder = {int4 ? PackedFormat::kInt4 : PackedFormat::kInt8, in_bytes};
    if (in_bytes) all.tower = {PackedFormat::kInt8, in_bytes};
    return all;
  }
};

// Other numbers of threads are tried where they give the same bits: with our own products, while
// libtorch may sum those of float32 in another order. Few rows of bfloat16 or packed weights are
// always ours, those of prompts and pictures where there are product_families().
StepThreads choose_threads(ComputeThreads threads, at::Device device, DType dtype,
                           const Packings& packings) {
  const bool half = dtype == DType::kBFloat16;
  const bool adapts = device.is_cpu() && (half || packings.decoder);
  return {adapts ? threads.least : threads.most, threads.most, half && !product_families().empty()};
}

class TorchExecutor : public Executor {
 public:
  /// The caller's current stream is `stream`.
  TorchExecutor(std::shared_ptr<const Checkpoint> checkpoint, at::Device device,
                std::optional<c10::Stream> stream, DType dtype, const Packings& packings,
                ComputeThreads threads, int64_t prompt_chunk, TensorSource source)
      : checkpoint_(std::move(checkpoint)),
        config_(checkpoint_->config()),
        device_(device),
        stream_(stream),
        dtype_(scalar_type(dtype)),
        tower_(config_, source, packings.tower),
        projector_(config_, source, packings.tower),
        merge_(config_, source),
        decoder_(config_.text, source, device, packings.decoder),
        demand_(memory_demand(config_, dtype_, device, threads.most, source)),
        limits_(limits_for(demand_, prompt_chunk)),
        cache_(config_.text, limits_.cache_slots + kSpareSlots,
               at::TensorOptions().dtype(dtype_).device(device)),
        buffers_(limits_.max_rows, std::min(demand_.context, limits_.cache_slots), device),
        sampler_(limits_.max_rows, device),
        threads_(choose_threads(threads, device, dtype, packings)),
        gpu_step_(GpuStep::make(decoder_, cache_, buffers_, limits_.max_rows)),
        cpu_step_(CpuStep::make(decoder_, cache_, buffers_)) {
    if (gpu_step_ != nullptr) {
      run_ahead_.emplace(*gpu_step_, buffers_, sampler_);
      limits_.looks_ahead = true;
    }
    if (device.is_cpu() && HugeMemory::available() && source.bytes() < room_for_moves()) {
      to_move_ = decoder_.matrices();
    }
    for (const Linear* matrix : decoder_.matrices()) {
      const GpuMatrix sizes = matrix->gpu_matrix();
      products_of_chunk_ += static_cast<double>(sizes.outputs * sizes.inputs) *
                            static_cast<double>(limits_.prompt_chunk);
    }
    info_.name = checkpoint_->name();
    info_.device = device.str();
    info_.dtype = dtype;
    info_.parameters = source.parameters();
    info_.weight_bytes = source.bytes();
    info_.kv_cache_bytes = limits_.cache_slots * demand_.slot;
    info_.context_length = demand_.context;
    info_.picture_tokens = config_.max_prompt_tokens > 0 ? 0 : config_.image_tokens();
    info_.vocab_size = config_.text.vocab_size;
    info_.prompt_chunk = limits_.prompt_chunk;
  }

  ~TorchExecutor() override { ReusedMemory::let_go(); }

  const ModelInfo& info() const override { return info_; }
  const ExecutorLimits& limits() const override { return limits_; }

  std::vector<std::shared_ptr<const ImageEmbeds>> encode(
      const std::vector<const PixelTensor*>& batch, const std::vector<std::string>& trace_paths,
      const std::function<void()>& between) override {
    const c10::OptionalStreamGuard guard(stream_);
    const ReusedMemory memory;
    int64_t count = 0;
    for (const PixelTensor* part : batch) count += part->images;
    const int64_t runs = runs_;
    const auto start = std::chrono::steady_clock::now();
    const TeamSize team(threads_.next(StepThreads::Kind::kPictures, count));
    auto images = translated("encoding pictures",
                             [&] { return encode_pictures(batch, trace_paths, between); });
    if (runs_ == runs) tell(StepThreads::Kind::kPictures, count, start);
    return images;
  }

  StepResult run(const StepPlan& plan) override {
    const c10::OptionalStreamGuard guard(stream_);
    const ReusedMemory memory;
    return translated("running the language model", [&] { return step(plan); });
  }

  void drop_trace(const std::string& trace_path) override { traces_.erase(trace_path); }

  Status write_trace(const std::string& trace_path,
                     const std::vector<int64_t>& token_ids) override {
    auto node = traces_.extract(trace_path);
    if (node.empty()) {
      return Error{ErrorKind::kInternal, "nothing was kept for the trace " + trace_path, {}};
    }
    node.mapped()["token_ids"] = at::tensor(token_ids, at::kLong);
    return write_safetensors(trace_path, node.mapped());
  }

 private:
  using Tensors = std::map<std::string, at::Tensor>;

  struct Encoded {
    at::Tensor features;  ///< [images, tokens, feature_size]; undefined where nobody asked
    at::Tensor embeds;    ///< [images, tokens, hidden_size]
  };

  at::Tensor pixels_of(const PixelTensor& part) const {
    if (part.on_device != nullptr) {
      return static_cast<const TorchPixels&>(*part.on_device).values;
    }
    return at::from_blob(const_cast<float*>(part.values.data()),
                         {part.images, part.channels, part.height, part.width}, at::kFloat);
  }

  // Packs the images of all requests, in passes of bounded size.
  Encoded encode_images(const std::vector<at::Tensor>& pixels, bool keep_features,
                        const std::function<void()>& between) const {
    double since = 0;
    const auto after_block = [&](double products) {
      since += products;
      if (since < products_of_chunk_) return;
      since = 0;
      between();
    };
    std::vector<at::Tensor> pass, features, embeds;
    const auto run_pass = [&] {
      const at::Tensor taken = tower_.forward(at::cat(pass).to(dtype_), after_block);
      embeds.push_back(projector_.forward(taken));
      if (keep_features) features.push_back(taken);
      pass.clear();
    };
    for (const at::Tensor& own : pixels) {
      for (const at::Tensor& image : own.split(1)) {
        pass.push_back(image.to(device_));
        if (pass.size() == static_cast<size_t>(limits_.images)) run_pass();
      }
    }
    if (!pass.empty()) run_pass();
    return {keep_features ? at::cat(features) : at::Tensor(), at::cat(embeds)};
  }

  std::shared_ptr<TorchImageEmbeds> merge_pictures(const at::Tensor& embeds,
                                                   const std::vector<TileGrid>& pictures) const {
    auto result = std::make_shared<TorchImageEmbeds>();
    int64_t first = 0;
    for (const TileGrid& grid : pictures) {
      result->pictures.push_back(merge_.forward(embeds.narrow(0, first, grid.images()), grid));
      result->tokens += result->pictures.back().size(0);
      first += grid.images();
    }
    return result;
  }

  std::vector<std::shared_ptr<const ImageEmbeds>> encode_pictures(
      const std::vector<const PixelTensor*>& batch, const std::vector<std::string>& trace_paths,
      const std::function<void()>& between) {
    const c10::InferenceMode guard;
    std::vector<at::Tensor> pixels;
    for (const PixelTensor* part : batch) pixels.push_back(pixels_of(*part));
    const bool traced = std::any_of(trace_paths.begin(), trace_paths.end(),
                                    [](const std::string& path) { return !path.empty(); });
    const Encoded encoded = encode_images(pixels, traced, between);
    std::vector<std::shared_ptr<const ImageEmbeds>> results;
    int64_t first = 0;
    for (size_t i = 0; i < batch.size(); ++i) {
      const int64_t count = batch[i]->images;
      const auto result =
          merge_pictures(encoded.embeds.narrow(0, first, count), batch[i]->pictures);
      if (!trace_paths[i].empty()) {
        Tensors& kept = traces_[trace_paths[i]];
        kept["pixel_values"] = pixels[i].clone();
        kept["vision_features"] = encoded.features.narrow(0, first, count).to(at::kFloat);
        kept["image_embeds"] = at::cat(result->pictures).to(at::kFloat);
      }
      results.push_back(result);
      first += count;
    }
    return results;
  }

  // The step's rows: prompts as they come, sequences that go on from the fixed buffers.
  struct Rows {
    at::Tensor ids;
    std::vector<ImagePlacement> placements;
    DecoderBatch batch;
  };

  Rows gather_rows(const StepPlan& plan) {
    std::vector<int64_t> ids, positions, lengths, slots, logit_rows;
    Rows rows;
    for (const PromptPart& part : plan.prompts) {
      const auto first = static_cast<int64_t>(ids.size());
      const auto own = [&](const auto& all) {
        return std::span(all).subspan(part.first, part.count);
      };
      ids.insert(ids.end(), own(*part.ids).begin(), own(*part.ids).end());
      slots.insert(slots.end(), own(*part.slots).begin(), own(*part.slots).end());
      lengths.insert(lengths.end(), part.count, static_cast<int64_t>(part.ids->size()));
      for (int64_t i = part.first; i < part.end(); ++i) positions.push_back(i);
      if (part.last()) logit_rows.push_back(first + part.count - 1);
      rows.batch.prompts.push_back({part.count, sequence_of(part)});
      place_pictures(part, first, ids, rows.placements);
    }
    buffers_.fill(plan.decodes);
    for (int64_t row = 0; row < buffers_.rows(); ++row) {
      logit_rows.push_back(static_cast<int64_t>(ids.size()) + row);
    }
    const auto packed = [&](const std::vector<int64_t>& prompts, const at::Tensor& decodes) {
      if (prompts.empty()) return decodes;
      return at::cat({at::tensor(prompts, at::kLong).to(device_), decodes});
    };
    rows.ids = packed(ids, buffers_.ids());
    rows.batch.positions = packed(positions, buffers_.positions());
    rows.batch.lengths = packed(lengths, buffers_.lengths());
    rows.batch.slots = packed(slots, buffers_.slots());
    rows.batch.cached = buffers_.cached();
    rows.batch.logit_rows = at::tensor(logit_rows, at::kLong).to(device_);
    return rows;
  }

  at::Tensor sequence_of(const PromptPart& part) const {
    if (part.first == 0) return {};
    return at::tensor(at::ArrayRef(*part.slots).slice(0, part.end()), at::kInt)
        .to(device_, at::kLong);
  }

  // What of the pictures lies in this part, whose first row is `first`. The placeholder's id may
  // lie outside the embedding table, so it gives way to one that does not.
  static void place_pictures(const PromptPart& part, int64_t first, std::vector<int64_t>& ids,
                             std::vector<ImagePlacement>& placements) {
    if (part.images == nullptr) return;
    const auto& images = static_cast<const TorchImageEmbeds&>(*part.images);
    for (size_t i = 0; i < part.image_offsets->size(); ++i) {
      const int64_t offset = (*part.image_offsets)[i];
      const int64_t begin = std::max(offset, part.first);
      // A prompt may end in the middle of a picture.
      const int64_t end = std::min(offset + images.pictures[i].size(0), part.end());
      if (begin >= end) continue;
      const int64_t row = first + begin - part.first;
      placements.push_back({row, images.pictures[i].slice(0, begin - offset, end - offset)});
      std::fill_n(ids.begin() + row, end - begin, 0);
    }
  }

  StepResult step(const StepPlan& plan) {
    const c10::InferenceMode guard;
    if (run_ahead_ && !plan.decodes.empty()) return step_on_gpu(plan);
    if (run_ahead_) run_ahead_->drop();
    StepResult result = {run_timed(plan)};
    move_weights();
    return result;
  }

  // Half of the memory, but nothing of what cache and steps may come to need. What of the cache is
  // in use counts twice, since nobody knows how much that is.
  int64_t room_for_moves() const {
    const int64_t available = available_memory(device_);
    return std::min(available / 2, available - bytes_at_most(demand_, limits_));
  }

  // One matrix after each step from kStepsBeforeMoves on, as long as there is room: others may have
  // taken it since, and the step is done without it.
  void move_weights() {
    if (to_move_.empty() || ++steps_ <= kStepsBeforeMoves) return;
    Linear* next = to_move_.back();
    to_move_.pop_back();
    const bool room = room_for_moves() > next->bytes();
    if (!room || !next->move_weights(large_pages_)) to_move_.clear();
  }

  std::vector<Chosen> run_timed(const StepPlan& plan) {
    auto kind = StepThreads::Kind::kDecode;
    auto rows = static_cast<int64_t>(plan.decodes.size());
    for (const PromptPart& part : plan.prompts) {
      kind = StepThreads::Kind::kPrompt;
      rows += part.count;
    }
    const TeamSize team(threads_.next(kind, rows));
    const auto start = std::chrono::steady_clock::now();
    std::vector<Chosen> chosen = run_together(plan);
    tell(kind, rows, start);
    ++runs_;
    return chosen;
  }

  void tell(StepThreads::Kind kind, int64_t size, std::chrono::steady_clock::time_point start) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    threads_.ran(kind, size, took.count());
  }

  // Prompts and sequences that go on, in one pass.
  std::vector<Chosen> run_together(const StepPlan& plan) {
    if (cpu_step_ && plan.prompts.empty() &&
        cpu_step_->takes(static_cast<int64_t>(plan.decodes.size()))) {
      buffers_.fill(plan.decodes);
      return sampler_.choose(cpu_step_->run(), plan.choices);
    }
    const Rows rows = gather_rows(plan);
    const at::Tensor embeds = fuse(decoder_.embedding_table(), rows.ids, rows.placements);
    const at::Tensor logits = decoder_.forward(embeds, rows.batch, cache_);
    keep_traces(plan, embeds, logits);
    return sampler_.choose(logits, plan.choices);
  }

  // Sequences that go on have a way of their own there; prompts follow behind them.
  StepResult step_on_gpu(const StepPlan& plan) {
    StepPlan prompts;
    prompts.prompts = plan.prompts;
    std::vector<Choice> choices;
    const int64_t first = std::count_if(plan.prompts.begin(), plan.prompts.end(),
                                        [](const PromptPart& part) { return part.last(); });
    for (const Choice& choice : plan.choices) {
      const bool of_prompt = choice.first_row < first;
      (of_prompt ? prompts.choices : choices).push_back(choice);
      if (!of_prompt) choices.back().first_row -= first;
    }
    run_ahead_->start(plan.decodes, choices, prompts.prompts.empty());
    StepResult result;
    if (!prompts.prompts.empty()) result.chosen = run_together(prompts);
    for (Chosen& chosen : run_ahead_->answer(choices)) result.chosen.push_back(std::move(chosen));
    return result;
  }

  void keep_traces(const StepPlan& plan, const at::Tensor& embeds, const at::Tensor& logits) {
    int64_t first = 0, result = 0;
    for (const PromptPart& part : plan.prompts) {
      if (!part.trace_path.empty()) {
        Tensors& kept = traces_[part.trace_path];
        kept["inputs_embeds"] = embeds.narrow(0, first, part.count).to(at::kFloat);
        kept["prompt_ids"] = at::tensor(*part.ids, at::kLong);
        kept["first_logits"] = logits.select(0, result).clone();
      }
      first += part.count;
      result += part.last() ? 1 : 0;
    }
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  const ModelConfig& config_;
  at::Device device_;
  std::optional<c10::Stream> stream_;  // on a GPU
  at::ScalarType dtype_;
  VisionTower tower_;
  Projector projector_;
  PictureMerge merge_;
  Decoder decoder_;
  MemoryDemand demand_;
  ExecutorLimits limits_;
  KvCache cache_;
  StepBuffers buffers_;
  Sampler sampler_;
  StepThreads threads_;
  std::unique_ptr<GpuStep> gpu_step_;  // null where there is none
  std::optional<RunAhead> run_ahead_;  // likewise
  std::unique_ptr<CpuStep> cpu_step_;  // likewise
  ModelInfo info_;
  double products_of_chunk_ = 0;  // multiplications that a part of a prompt takes
  std::map<std::string, Tensors> traces_;
  HugeMemory large_pages_;
  std::vector<Linear*> to_move_;  // what is not there yet
  int64_t steps_ = 0;
  int64_t runs_ = 0;  // on the CPU
};

// What a closed engine held stays with libtorch, for a stream that no other engine uses. Not asked
// for before there was one.
void give_back_closed_engines_memory(at::Device device) {
  static std::atomic<bool> loaded_before = false;
  if (device.is_cpu() || !loaded_before.exchange(true)) return;
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11
  c10::getDeviceAllocator(device.type())->emptyCache();
#endif
}

}  // namespace

std::unique_ptr<Executor> make_executor(const ModelSpec& spec,
                                        std::shared_ptr<const Checkpoint> checkpoint,
                                        const LoadProgress& progress, std::stop_token stop) {
  return translated("loading the model", [&]() -> std::unique_ptr<Executor> {
    const c10::InferenceMode guard;
    const at::Device device = resolve_device(spec.device);
    const DType dtype = resolve_dtype(spec.dtype, checkpoint->config().stored_dtype, device);
    const Packings packings = Packings::choose(spec.quantization, device, dtype);
    give_back_closed_engines_memory(device);
    std::optional<c10::Stream> stream;
    if (!device.is_cpu()) stream = work_stream(device);
    const c10::OptionalStreamGuard stream_guard(stream);
    const ComputeThreads threads = ComputeThreads::choose();
    const TeamSize team(threads.most);
    TensorSource source(checkpoint->weights(), device, scalar_type(dtype), progress, stop);
    return std::make_unique<TorchExecutor>(std::move(checkpoint), device, stream, dtype, packings,
                                           threads, spec.prompt_chunk, std::move(source));
  });
}

}  // namespace vlm
