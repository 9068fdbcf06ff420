// SPDX-License-Identifier: LGPL-2.1-or-later
#include "projector/projector.h"

#include <ATen/ops/linear.h>

#include "kernels/activation.h"

namespace vlm {

Projector::Projector(const ModelConfig& config, TensorSource& source)
    : activation_(config.projector_activation) {
  const int64_t hidden = config.text.hidden_size;
  const std::string prefix = "multi_modal_projector.linear_";
  weight1_ = source.take(prefix + "1.weight", {hidden, config.feature_size()});
  weight2_ = source.take(prefix + "2.weight", {hidden, hidden});
  if (config.projector_bias) {
    bias1_ = source.take(prefix + "1.bias", {hidden});
    bias2_ = source.take(prefix + "2.bias", {hidden});
  }
}

at::Tensor Projector::forward(const at::Tensor& features) const {
  const at::Tensor inner = activate(at::linear(features, weight1_, bias1_), activation_);
  return at::linear(inner, weight2_, bias2_);
}

}  // namespace vlm
