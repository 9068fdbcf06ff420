// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "layers/linear.h"
#include "loader/config.h"
#include "loader/tensors.h"

namespace vlm {

/// The MLP from the tower's width to the decoder's: two layers in the Hugging Face layout
/// (transformers models/llava/modeling_llava.py), any number in the original one (LLaVA
/// multimodal_projector/builder.py), of which none leaves the features as they are. Weights
/// constant after construction.
class Projector {
 public:
  Projector(const ModelConfig& config, TensorSource& source, std::optional<Packing> packing);

  /// [images, tokens, feature_size] → [images, tokens, hidden_size of the decoder]
  at::Tensor forward(const at::Tensor& features) const;

 private:
  Activation activation_;
  std::vector<Linear> layers_;
};

}  // namespace vlm
