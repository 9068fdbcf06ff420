// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "loader/config.h"
#include "loader/tensors.h"
#include "preprocess/image.h"

namespace vlm {

/// Puts the features of a picture's images, which are the whole and its tiles, together to the
/// picture's tokens (LLaVA llava_arch.py, transformers models/llava_next). Weights constant after
/// construction.
class PictureMerge {
 public:
  PictureMerge(const ModelConfig& config, TensorSource& source);

  /// [grid.images(), tokens, hidden_size] → [picture_tokens(), hidden_size]
  at::Tensor forward(const at::Tensor& images, const TileGrid& grid) const;

 private:
  at::Tensor without_padding(const at::Tensor& patches, const TileGrid& grid) const;

  const ModelConfig& config_;
  at::Tensor newline_;  ///< [hidden_size], or undefined
};

}  // namespace vlm
