// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace vlm {

/// Features of one picture and where its first token lies among the packed rows.
struct ImagePlacement {
  int64_t row = 0;
  at::Tensor embeds;  ///< [tokens of the picture, hidden_size]
};

/// Text and pictures in one sequence: the embedding of every id, with each picture's features in
/// place of its placeholders (transformers models/llava/modeling_llava.py). Any number of sequences
/// may be packed one after another. ids: int64 [rows], already within the table at placeholder
/// positions. Result: [rows, hidden_size] in the table's type. Reentrant.
at::Tensor fuse(const at::Tensor& embedding_table, const at::Tensor& ids,
                const std::vector<ImagePlacement>& placements);

}  // namespace vlm
