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
#include "decoder/device_step.h"
#include "decoder/sample_table.h"
#include "decoder/step_buffers.h"

namespace vlm {

/// One token of each sequence on a GPU, as a CUDA graph: for every bucket of rows the whole step,
/// from the ids to the tokens chosen, is recorded once and then started by a single call; twice
/// where some steps take the likeliest tokens and others do not. All memory is allocated once.
/// Thread-bound.
class GpuStep final : public DeviceStep {
 public:
  /// Null where the device, its module or the weights' type have no such step. Steps run on the
  /// stream that is current now, which must be so at every call. All arguments must outlive it; the
  /// step works on `buffers` and on `cache`, whose last slot is the spare one of padded rows.
  static std::unique_ptr<GpuStep> make(const Decoder& decoder, KvCache& cache,
                                       const StepBuffers& buffers, int64_t max_rows);
  ~GpuStep() override;
  GpuStep(const GpuStep&) = delete;
  GpuStep& operator=(const GpuStep&) = delete;

  int64_t bucket(int64_t rows) const override;
  int32_t spare_slot() const override;
  bool pick_likeliest(const std::vector<const std::vector<int64_t>*>& banned) override;
  bool pick(const std::vector<Choice>& choices) override;
  Ticket run() override;
  Ticket run_on(const std::vector<int32_t>& upcoming) override;
  at::Tensor logits() const override;
  Picks picks(Ticket ticket) override;

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
