// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vision/tower.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/layer_norm.h>

#include <algorithm>

#include "kernels/activation.h"
#include "kernels/dense.h"
#include "layers/attention.h"

namespace vlm {
namespace {

const std::string kPrefix = "vision_tower.vision_model.";

}  // namespace

VisionTower::Norm VisionTower::take_norm(TensorSource& source, const std::string& name) const {
  return {source.take(kPrefix + name + ".weight", {config_.hidden_size}),
          source.take(kPrefix + name + ".bias", {config_.hidden_size})};
}

VisionTower::Layer VisionTower::take_layer(TensorSource& source, int64_t index,
                                           std::optional<Packing> packing) const {
  const std::string layer = "encoder.layers." + std::to_string(index) + ".";
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  const auto part = [&](const char* name, int64_t outputs) {
    return LinearPart{kPrefix + layer + name, outputs};
  };
  return {
      take_norm(source, layer + "layer_norm1"),
      take_norm(source, layer + "layer_norm2"),
      LinearGroup(source,
                  {part("self_attn.q_proj", hidden), part("self_attn.k_proj", hidden),
                   part("self_attn.v_proj", hidden)},
                  hidden, true, packing),
      Linear(source, {part("self_attn.out_proj", hidden)}, hidden, true, packing),
      Linear(source, {part("mlp.fc1", inner)}, hidden, true, packing),
      Linear(source, {part("mlp.fc2", hidden)}, inner, true, packing),
  };
}

VisionTower::VisionTower(const ModelConfig& config, TensorSource& source,
                         std::optional<Packing> packing)
    : config_(config.vision), keep_cls_(config.keep_cls) {
  for (int64_t layer : config.feature_layers) {
    states_.push_back(layer < 0 ? layer + config_.layers + 1 : layer);
  }
  const int64_t hidden = config_.hidden_size;
  class_embedding_ = source.take(kPrefix + "embeddings.class_embedding", {hidden});
  patch_weight_ = source.take(kPrefix + "embeddings.patch_embedding.weight",
                              {hidden, config_.channels, config_.patch_size, config_.patch_size});
  position_embedding_ = source.take(kPrefix + "embeddings.position_embedding.weight",
                                    {config_.patches() + 1, hidden});
  pre_norm_ = take_norm(source, "pre_layrnorm");
  // Blocks after the last state that is taken never run, so they are not loaded either.
  const int64_t used = *std::max_element(states_.begin(), states_.end());
  for (int64_t i = 0; i < used; ++i) layers_.push_back(take_layer(source, i, packing));
}

at::Tensor VisionTower::normalize(const at::Tensor& x, const Norm& norm) const {
  return at::layer_norm(x, {config_.hidden_size}, norm.weight, norm.bias, config_.layer_norm_eps);
}

at::Tensor VisionTower::attend(const at::Tensor& x, int64_t images, const Layer& layer) const {
  const std::vector<at::Tensor> qkv = layer.qkv.forward(x);
  const int64_t head_dim = config_.hidden_size / config_.heads;
  return layer.out.forward(
      whole_attention({config_.heads, config_.heads, head_dim}, images, qkv[0], qkv[1], qkv[2]));
}

at::Tensor VisionTower::embed_patches(const at::Tensor& pixels) const {
  const int64_t size = config_.patch_size;
  const int64_t rows = pixels.size(2) / size, columns = pixels.size(3) / size;
  // A convolution whose windows do not overlap is a product.
  const at::Tensor cut = pixels.narrow(2, 0, rows * size)
                             .narrow(3, 0, columns * size)
                             .reshape({pixels.size(0), pixels.size(1), rows, size, columns, size})
                             .permute({0, 2, 4, 1, 3, 5})
                             .reshape({pixels.size(0), rows * columns, -1});
  return dense(cut, patch_weight_.flatten(1), {});
}

at::Tensor VisionTower::forward(const at::Tensor& pixels,
                                const std::function<void(double)>& after_block) const {
  const int64_t images = pixels.size(0);
  const at::Tensor patches = embed_patches(pixels.to(patch_weight_.scalar_type()));
  const at::Tensor cls = class_embedding_.expand({images, 1, config_.hidden_size});
  at::Tensor x = normalize(at::cat({cls, patches}, 1) + position_embedding_, pre_norm_);
  const int64_t tokens = x.size(1);
  x = x.flatten(0, 1);
  const auto hidden = static_cast<double>(config_.hidden_size);
  const double products = static_cast<double>(images * tokens) * hidden *
                          (4 * hidden + 2 * static_cast<double>(config_.intermediate_size));
  std::vector<at::Tensor> taken(states_.size());
  for (int64_t state = 0;; ++state) {
    for (size_t i = 0; i < states_.size(); ++i) {
      if (states_[i] != state) continue;
      taken[i] = x.unflatten(0, {images, tokens});
      if (!keep_cls_) taken[i] = taken[i].slice(1, 1);
    }
    if (state == static_cast<int64_t>(layers_.size())) break;
    const Layer& layer = layers_[state];
    x = x + attend(normalize(x, layer.norm1), images, layer);
    const at::Tensor inner = layer.fc1.forward(normalize(x, layer.norm2));
    x = x + layer.fc2.forward(activate(inner, config_.activation));
    after_block(products);
  }
  return taken.size() == 1 ? taken[0] : at::cat(taken, -1);
}

}  // namespace vlm
