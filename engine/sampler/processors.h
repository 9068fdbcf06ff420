// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "scheduler/step_plan.h"

namespace vlm {

/// Warping of one row; off where top_k is 0, top_p 1, min_p 0.
struct Warp {
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  int64_t min_keep = 1;
};

/// Ids as int64 on the device of `like`.
at::Tensor id_tensor(const std::vector<int64_t>& ids, const at::Tensor& like);

/// Whether apply_processors would change the choice's rows at all.
bool has_processors(const Choice& choice);

/// Repetition penalty, then bans, on one row's scores in place: float32 [vocab_size]. `row` counts
/// within the choice.
void apply_processors(const at::Tensor& scores, const Choice& choice, int64_t row);

/// Temperature, top-k, top-p and min-p of every row: scores float32 [rows, vocab_size] → a new
/// tensor with -inf for what was taken out.
at::Tensor apply_warpers(const at::Tensor& scores, const std::vector<Warp>& warps);

}  // namespace vlm
