// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "scheduler/step_plan.h"

namespace vlm {

/// Turns logits into tokens or beam candidates: the processors and warpers of transformers'
/// generation/logits_process.py in its order, for all rows of a step together. What a row gets
/// depends on its own logits and its Choice alone.
///
/// logits: float32 [rows, vocab_size], raw, on any device; not changed. Results in the order of
/// `choices`.
std::vector<Chosen> choose_tokens(const at::Tensor& logits, const std::vector<Choice>& choices);

}  // namespace vlm
