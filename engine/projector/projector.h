// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "loader/config.h"
#include "loader/tensors.h"

namespace vlm {

/// The two-layer MLP from the tower's width to the decoder's (transformers
/// models/llava/modeling_llava.py). Weights constant after construction.
class Projector {
 public:
  Projector(const ModelConfig& config, TensorSource& source);

  /// [images, tokens, feature_size] → [images, tokens, hidden_size of the decoder]
  at::Tensor forward(const at::Tensor& features) const;

 private:
  Activation activation_;
  at::Tensor weight1_, bias1_, weight2_, bias2_;
};

}  // namespace vlm
