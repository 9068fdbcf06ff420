// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rsqrt.h>

#include "kernels/activation.h"

namespace vlm {
namespace {

const std::string kPrefix = "language_model.model.";

}  // namespace

Decoder::Linear Decoder::take_linear(TensorSource& source, const std::string& name, int64_t out,
                                     int64_t in, bool bias) {
  return {source.take(name + ".weight", {out, in}),
          bias ? source.take(name + ".bias", {out}) : at::Tensor()};
}

Decoder::Layer Decoder::take_layer(TensorSource& source, int64_t index) const {
  const std::string layer = kPrefix + "layers." + std::to_string(index) + ".";
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  const int64_t q_size = config_.heads * config_.head_dim;
  const int64_t kv_size = config_.kv_heads * config_.head_dim;
  const bool attention_bias = config_.attention_bias;
  return {
      source.take(layer + "input_layernorm.weight", {hidden}),
      source.take(layer + "post_attention_layernorm.weight", {hidden}),
      take_linear(source, layer + "self_attn.q_proj", q_size, hidden, attention_bias),
      take_linear(source, layer + "self_attn.k_proj", kv_size, hidden, attention_bias),
      take_linear(source, layer + "self_attn.v_proj", kv_size, hidden, attention_bias),
      take_linear(source, layer + "self_attn.o_proj", hidden, q_size, attention_bias),
      take_linear(source, layer + "mlp.gate_proj", inner, hidden, config_.mlp_bias),
      take_linear(source, layer + "mlp.up_proj", inner, hidden, config_.mlp_bias),
      take_linear(source, layer + "mlp.down_proj", hidden, inner, config_.mlp_bias),
  };
}

Decoder::Decoder(const TextConfig& config, TensorSource& source, at::Device device)
    : config_(config), rope_(config, device) {
  const int64_t hidden = config_.hidden_size;
  embedding_ = source.take(kPrefix + "embed_tokens.weight", {config_.vocab_size, hidden});
  for (int64_t i = 0; i < config_.layers; ++i) layers_.push_back(take_layer(source, i));
  final_norm_ = source.take(kPrefix + "norm.weight", {hidden});
  lm_head_ = config_.tie_word_embeddings
                 ? embedding_
                 : source.take("language_model.lm_head.weight", {config_.vocab_size, hidden});
}

at::Tensor Decoder::normalize(const at::Tensor& x, const at::Tensor& weight) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + config_.rms_norm_eps);
  return weight * (wide * scale).to(x.scalar_type());
}

at::Tensor Decoder::attend(const at::Tensor& x, int64_t index, const DecoderBatch& batch,
                           const Rope::Angles& angles, KvCache& cache) const {
  const Layer& layer = layers_[index];
  const int64_t rows = x.size(0);
  const auto heads = [&](const Linear& linear, int64_t count) {  // [rows, count, head_dim]
    return at::linear(x, linear.weight, linear.bias).view({rows, count, config_.head_dim});
  };
  const at::Tensor q = Rope::apply(heads(layer.q, config_.heads), angles);
  const at::Tensor k = Rope::apply(heads(layer.k, config_.kv_heads), angles);
  const at::Tensor v = heads(layer.v, config_.kv_heads);
  cache.store(index, batch.slots, k, v);

  std::vector<at::Tensor> parts;
  int64_t row = 0;
  for (int64_t tokens : batch.prompt_lengths) {
    parts.push_back(prompt_attention(config_, q.narrow(0, row, tokens), k.narrow(0, row, tokens),
                                     v.narrow(0, row, tokens)));
    row += tokens;
  }
  if (batch.cached.rows() > 0) {
    parts.push_back(cached_attention(config_, q.narrow(0, row, batch.cached.rows()),
                                     cache.keys(index), cache.values(index), batch.cached));
  }
  const at::Tensor mixed = parts.size() == 1 ? parts[0] : at::cat(parts, 0);
  return at::linear(mixed, layer.o.weight, layer.o.bias);
}

at::Tensor Decoder::forward(const at::Tensor& embeds, const DecoderBatch& batch,
                            KvCache& cache) const {
  Rope::Angles angles = rope_.angles(batch.positions, batch.lengths);
  angles.cos = angles.cos.to(embeds.scalar_type());
  angles.sin = angles.sin.to(embeds.scalar_type());
  at::Tensor x = embeds;
  for (int64_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    x = x + attend(normalize(x, layer.input_norm), i, batch, angles, cache);
    const at::Tensor normed = normalize(x, layer.post_attention_norm);
    const at::Tensor gate =
        activate(at::linear(normed, layer.gate.weight, layer.gate.bias), config_.activation);
    const at::Tensor inner = gate * at::linear(normed, layer.up.weight, layer.up.bias);
    x = x + at::linear(inner, layer.down.weight, layer.down.bias);
  }
  const at::Tensor last = normalize(at::index_select(x, 0, batch.logit_rows), final_norm_);
  return at::linear(last, lm_head_).to(at::kFloat);
}

}  // namespace vlm
