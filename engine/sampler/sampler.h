// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "sampler/warp_table.h"
#include "scheduler/step_plan.h"

namespace vlm {

/// Whether the choice is the likeliest id that is not banned, and nothing else is asked.
bool takes_the_likeliest(const Choice& choice);

/// Turns logits into tokens or beam candidates: the processors and warpers of transformers'
/// generation/logits_process.py in its order, for all rows of a step together. What a row gets
/// depends on its own logits and its Choice alone.
///
/// Thread-bound.
class Sampler {
 public:
  /// `max_rows`: logits rows in one step at most.
  Sampler(int64_t max_rows, at::Device device) : warps_(max_rows, device) {}

  /// logits: float32 [rows, vocab_size], raw, on the device; not changed. Results in the order of
  /// `choices`.
  std::vector<Chosen> choose(const at::Tensor& logits, const std::vector<Choice>& choices);

 private:
  WarpTable warps_;
};

}  // namespace vlm
