// SPDX-License-Identifier: LGPL-2.1-or-later
#include "projector/projector.h"

#include <string>

#include "kernels/activation.h"

namespace vlm {

Projector::Projector(const ModelConfig& config, TensorSource& source,
                     std::optional<Packing> packing)
    : activation_(config.projector_activation) {
  const int64_t hidden = config.text.hidden_size;
  for (int64_t i = 0; i < config.projector_layers; ++i) {
    const std::string name = "multi_modal_projector.linear_" + std::to_string(i + 1);
    layers_.emplace_back(source, std::vector<LinearPart>{{name, hidden}},
                         i == 0 ? config.feature_size() : hidden, config.projector_bias, packing);
  }
}

at::Tensor Projector::forward(const at::Tensor& features) const {
  at::Tensor x = features.flatten(0, 1);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (i > 0) x = activate(x, activation_);
    x = layers_[i].forward(x);
  }
  return x.unflatten(0, {features.size(0), features.size(1)});
}

}  // namespace vlm
