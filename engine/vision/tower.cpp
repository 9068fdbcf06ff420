// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vision/tower.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>

#include "kernels/activation.h"
#include "kernels/dense.h"

namespace vlm {
namespace {

const std::string kPrefix = "vision_tower.vision_model.";

}  // namespace

VisionTower::Linear VisionTower::take_linear(TensorSource& source, const std::string& name,
                                             int64_t out, int64_t in) {
  return {source.take(kPrefix + name + ".weight", {out, in}),
          source.take(kPrefix + name + ".bias", {out})};
}

VisionTower::Norm VisionTower::take_norm(TensorSource& source, const std::string& name) const {
  return {source.take(kPrefix + name + ".weight", {config_.hidden_size}),
          source.take(kPrefix + name + ".bias", {config_.hidden_size})};
}

std::vector<VisionTower::Linear> VisionTower::take_qkv(TensorSource& source,
                                                       const std::string& layer) const {
  std::vector<Linear> parts;
  std::vector<at::Tensor> weights, biases;
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}) {
    parts.push_back(take_linear(source, layer + name, config_.hidden_size, config_.hidden_size));
    weights.push_back(parts.back().weight);
    biases.push_back(parts.back().bias);
  }
  // On the CPU the weights stay where the file is mapped.
  if (source.device().is_cpu()) return parts;
  return {{at::cat(weights), at::cat(biases)}};
}

VisionTower::VisionTower(const ModelConfig& config, TensorSource& source)
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
  for (int64_t i = 0; i < used; ++i) {
    const std::string layer = "encoder.layers." + std::to_string(i) + ".";
    layers_.push_back({
        take_norm(source, layer + "layer_norm1"),
        take_norm(source, layer + "layer_norm2"),
        take_qkv(source, layer),
        take_linear(source, layer + "self_attn.out_proj", hidden, hidden),
        take_linear(source, layer + "mlp.fc1", config_.intermediate_size, hidden),
        take_linear(source, layer + "mlp.fc2", hidden, config_.intermediate_size),
    });
  }
}

at::Tensor VisionTower::normalize(const at::Tensor& x, const Norm& norm) const {
  return at::layer_norm(x, {config_.hidden_size}, norm.weight, norm.bias, config_.layer_norm_eps);
}

at::Tensor VisionTower::attend(const at::Tensor& x, const Layer& layer) const {
  const int64_t images = x.size(0);
  const int64_t tokens = x.size(1);
  std::vector<at::Tensor> qkv;
  for (const Linear& linear : layer.qkv) qkv.push_back(dense(x, linear.weight, linear.bias));
  if (qkv.size() == 1) qkv = qkv[0].chunk(3, -1);
  const auto heads = [&](const at::Tensor& part) {  // [images, heads, tokens, head_dim]
    return part.view({images, tokens, config_.heads, config_.hidden_size / config_.heads})
        .transpose(1, 2);
  };
  const at::Tensor mixed =
      at::scaled_dot_product_attention(heads(qkv[0]), heads(qkv[1]), heads(qkv[2]));
  return dense(mixed.transpose(1, 2).reshape({images, tokens, config_.hidden_size}),
               layer.out.weight, layer.out.bias);
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

at::Tensor VisionTower::forward(const at::Tensor& pixels) const {
  const int64_t images = pixels.size(0);
  const at::Tensor patches = embed_patches(pixels.to(patch_weight_.scalar_type()));
  const at::Tensor cls = class_embedding_.expand({images, 1, config_.hidden_size});
  at::Tensor x = normalize(at::cat({cls, patches}, 1) + position_embedding_, pre_norm_);
  std::vector<at::Tensor> taken(states_.size());
  for (int64_t state = 0;; ++state) {
    for (size_t i = 0; i < states_.size(); ++i) {
      if (states_[i] == state) taken[i] = keep_cls_ ? x : x.slice(1, 1);
    }
    if (state == static_cast<int64_t>(layers_.size())) break;
    const Layer& layer = layers_[state];
    x = x + attend(normalize(x, layer.norm1), layer);
    const at::Tensor inner = dense(normalize(x, layer.norm2), layer.fc1.weight, layer.fc1.bias);
    x = x + dense(activate(inner, config_.activation), layer.fc2.weight, layer.fc2.bias);
  }
  return taken.size() == 1 ? taken[0] : at::cat(taken, -1);
}

}  // namespace vlm
