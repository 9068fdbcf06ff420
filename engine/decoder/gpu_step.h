// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/device_buffer.h"
#include "decoder/decoder.h"
#include "decoder/sample_table.h"
#include "decoder/step_buffers.h"

namespace vlm {

/// One token of each sequence on a GPU, as a CUDA graph: for every bucket of rows the whole step,
/// from the ids to the tokens chosen, is recorded once and then started by a single call; twice
/// where some steps take the likeliest tokens and others do not. A step may follow another without
/// the host having seen what came of that. All memory is allocated once. Thread-bound.
class GpuStep {
 public:
  /// Null where the device, its module or the weights' type have no such step. Steps run on the
  /// stream that is current now, which must be so at every call. All arguments must outlive it; the
  /// step works on `buffers` and on `cache`, whose last slot is the spare one of padded rows.
  static std::unique_ptr<GpuStep> make(const Decoder& decoder, KvCache& cache,
                                       const StepBuffers& buffers, int64_t max_rows);
  ~GpuStep();
  GpuStep(const GpuStep&) = delete;
  GpuStep& operator=(const GpuStep&) = delete;

  /// Rows that a step of so many takes: the rest must be padded, with this slot.
  int64_t bucket(int64_t rows) const;
  int32_t spare_slot() const;

  /// What the picks of the next run are to be, for the rows that `buffers` hold, which a step that
  /// goes on from it keeps to: the likeliest but for ids that they must not be, one list for each
  /// row that has any, or what these choices want. False where the device cannot do that: the picks
  /// are nobody's then.
  bool pick_likeliest(const std::vector<const std::vector<int64_t>*>& banned);
  bool pick(const std::vector<Choice>& choices);
  /// One of the last two runs.
  using Ticket = int64_t;

  /// Runs what `buffers` hold, as many rows as a bucket has. Enqueues only.
  Ticket run();
  /// Enqueues another run with the rows of the last one, each going on from its pick in the slot
  /// `upcoming[row]`; -1, and rows beyond the list, are nobody's from now on.
  Ticket run_on(const std::vector<int32_t>& upcoming);
  /// float32 [rows, vocab_size] of the last run, until the next one.
  at::Tensor logits() const;

  struct Picks {
    const int64_t* tokens;  ///< of each row
    const float* logprobs;  ///< under the raw distribution; not finite where there is none
  };
  /// Waits for a run. On the host, valid until the run after the next one.
  Picks picks(Ticket ticket);

 private:
  // What the host gets of a run.
  struct Outcome {
    at::Tensor picked;  // on the host, as above
    void* event = nullptr;
    DeviceBuffer upcoming;  // int32 [max_rows]: where this run's rows went on
  };

  GpuStep(const Decoder& decoder, KvCache& cache, const StepBuffers& buffers, int64_t max_rows,
          at::TensorOptions options);

  void start();
  void enqueue(int64_t rows);
  Outcome& outcome(Ticket ticket) { return outcomes_[static_cast<size_t>(ticket % 2)]; }
  void attend(const Decoder::Layer& layer, int64_t index, int64_t rows);
  void look_back(int64_t index, int64_t rows);
  void transform(const Decoder::Layer& layer, int64_t rows);
  void finish(int64_t rows);
  void pick_tokens(int64_t rows);
  bool few_rows(const Linear& linear, int64_t rows, GpuMatVecArgs& args) const;
  bool normalized_product(GpuMatVecArgs& args, const at::Tensor& norm_weight, int64_t rows);
  at::Tensor normalize(const at::Tensor& weight, int64_t rows);
  void add_product(const Linear& linear, const at::Tensor& x, int64_t rows);

  const Decoder& decoder_;
  KvCache& cache_;
  const StepBuffers& buffers_;
  const CudaModule& module_;
  KernelType type_;
  GpuInfo info_;
  void* stream_;  // the one that was current at construction, and is at every call
  int64_t max_rows_;
  int64_t rows_ = 0;
  bool sampled_ = false;                              // picks are what table_ says
  std::map<std::pair<int64_t, bool>, void*> graphs_;  // by rows and that
  Rope::Angles angles_;  // of every position: [context, head_dim], in the weights' type

  // Activations, [max_rows, …].
  at::Tensor x_, normed_, qkv_, q_, mixed_, gate_up_, inner_, delta_, narrow_logits_, logits_;
  at::Tensor partials_, arrivals_;  // of the attention's parts
  DeviceBuffer banned_;             // int64 [max_rows, kBans]
  int64_t banned_rows_ = 0;         // that hold anything but -1
  SampleTable table_;
  at::Tensor picked_;  // bytes: int64 tokens, then float log-probabilities
  Ticket last_ = -1;
  std::array<Outcome, 2> outcomes_;  // by ticket, in turn
};

}  // namespace vlm
