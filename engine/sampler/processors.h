// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "sampler/warp_table.h"
#include "scheduler/step_plan.h"

namespace vlm {

/// Ids as int64 on the device of `like`.
at::Tensor id_tensor(const std::vector<int64_t>& ids, const at::Tensor& like);

/// Whether apply_processors would change the choice's rows at all.
bool has_processors(const Choice& choice);

/// Repetition penalty, then bans, on one row's scores in place: float32 [vocab_size]. `row` counts
/// within the choice.
void apply_processors(const at::Tensor& scores, const Choice& choice, int64_t row);

/// Temperature, and of top-k, top-p and min-p what is in use, of every row: scores float32 [rows,
/// vocab_size] → a new tensor with -inf for what was taken out. warps: the rows' part of
/// WarpTable::values().
at::Tensor apply_warpers(const at::Tensor& scores, const at::Tensor& warps, WarpUse use);

}  // namespace vlm
