// SPDX-License-Identifier: LGPL-2.1-or-later
#include "projector/projector.h"

#include <string>
#include <utility>

#include "kernels/activation.h"
#include "kernels/dense.h"

namespace vlm {

Projector::Projector(const ModelConfig& config, TensorSource& source)
    : activation_(config.projector_activation) {
  const int64_t hidden = config.text.hidden_size;
  for (int64_t i = 0; i < config.projector_layers; ++i) {
    const std::string name = "multi_modal_projector.linear_" + std::to_string(i + 1);
    Linear layer;
    layer.weight = source.take(name + ".weight", {hidden, i == 0 ? config.feature_size() : hidden});
    if (config.projector_bias) layer.bias = source.take(name + ".bias", {hidden});
    layers_.push_back(std::move(layer));
  }
}

at::Tensor Projector::forward(const at::Tensor& features) const {
  at::Tensor x = features;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (i > 0) x = activate(x, activation_);
    x = dense(x, layers_[i].weight, layers_[i].bias);
  }
  return x;
}

}  // namespace vlm
