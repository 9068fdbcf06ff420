// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/team.h"
#include "decoder/decoder.h"
#include "decoder/step_buffers.h"
#include "kernels/laid_out_rows.h"
#include "kernels/paged_attention.h"

namespace vlm {

/// One token of each of a few sequences on the CPU in bfloat16: what Decoder::forward() does, to
/// the same bits, as one piece of work of all threads, which a model whose products take
/// microseconds would else spend most of its time with starting and with libtorch's bookkeeping.
/// Steps of rows and lengths that were there before take no memory but for the result's handle.
/// Thread-bound.
class CpuStep {
 public:
  /// Null where the device, the weights' type or the model's activation or heads have no such step.
  /// All arguments must outlive it; it works on `buffers` and on `cache`.
  static std::unique_ptr<CpuStep> make(const Decoder& decoder, KvCache& cache,
                                       const StepBuffers& buffers);
  ~CpuStep();
  CpuStep(const CpuStep&) = delete;
  CpuStep& operator=(const CpuStep&) = delete;

  /// Whether run() takes so many rows: those whose products Decoder::forward() would give to the
  /// kernels of few rows.
  bool takes(int64_t rows) const;

  /// Runs what the buffers hold. float32 [rows, vocab_size], until the next run. May throw
  /// what libtorch does where memory is short, before anything is done.
  at::Tensor run();

 private:
  struct Scratch;
  struct Product;

  CpuStep(const Decoder& decoder, KvCache& cache, const StepBuffers& buffers);

  void make_room();
  void find_angles();
  PagedAttentionArgs attention_of(int64_t index);
  FewRowsWeights matrix(const Linear& linear) const;
  RowsShape rows_for(const Linear& linear) const;
  Scratch& scratch_of(const Team::Member& member);

  // What all members do together.
  void work(Team::Member& member);
  void begin(Team::Member& member);
  void attend(Team::Member& member, int64_t index);
  void transform(Team::Member& member, const Decoder::Layer& layer);
  void finish(Team::Member& member);
  void add_and_normalize(Team::Member& member, const at::Tensor& weight, LaidOutRows& to);
  void lay_out(Team::Member& member, const std::vector<uint16_t>& x, int64_t size, LaidOutRows& to);
  void multiply(Team::Member& member, const LaidOutRows& x, std::span<const Product> products);

  // What one does of that.
  void normalize_row(Scratch& scratch, int64_t row, bool add, const at::Tensor& weight,
                     LaidOutRows& to);
  void look_back(Scratch& scratch, int64_t index, int64_t row, int64_t kv_head, int64_t kv_heads);
  template <typename Work>
  void by_room(const FewRowsWeights& matrix, int64_t begin, int64_t end, const Work& work) const;
  void find_outputs(Scratch& scratch, const LaidOutRows& x, const FewRowsWeights& matrix,
                    int64_t begin, int64_t end, uint16_t* out, int64_t stride) const;

  const Decoder& decoder_;
  const TextConfig& config_;
  KvCache& cache_;
  const StepBuffers& buffers_;
  const int64_t q_size_, kv_size_;

  Team team_;
  int64_t rows_ = 0;
  StepBuffers::HostRows host_{};

  // bfloat16, [rows, …].
  std::vector<uint16_t> x_, delta_, q_, k_, v_, mixed_, inner_;
  // What products read: of the layers' sizes, and the last one's.
  std::unique_ptr<LaidOutRows> hidden_, attended_, activated_, last_;
  std::vector<Scratch> scratch_;  // of each thread
  // Of as many positions each, from position 0 on: bfloat16 [positions, head_dim].
  std::vector<Rope::Angles> angles_;
  int64_t kv_heads_at_once_ = 1;
  at::Tensor logits_;  // [rows there ever were, vocab_size]
};

}  // namespace vlm
