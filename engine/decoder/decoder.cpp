// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>

#include "kernels/activation.h"
#include "kernels/fused.h"

namespace vlm {
namespace {

const std::string kPrefix = "language_model.model.";

}  // namespace

Decoder::Layer Decoder::take_layer(TensorSource& source, int64_t index,
                                   std::optional<PackedFormat> format) const {
  const std::string layer = kPrefix + "layers." + std::to_string(index) + ".";
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  const int64_t q_size = config_.heads * config_.head_dim;
  const int64_t kv_size = config_.kv_heads * config_.head_dim;
  const auto linear = [&](const char* name, int64_t outputs, int64_t inputs, bool bias) {
    return Linear(source, layer + name, outputs, inputs, bias, format);
  };
  return {
      source.take(layer + "input_layernorm.weight", {hidden}),
      source.take(layer + "post_attention_layernorm.weight", {hidden}),
      linear("self_attn.q_proj", q_size, hidden, config_.attention_bias),
      linear("self_attn.k_proj", kv_size, hidden, config_.attention_bias),
      linear("self_attn.v_proj", kv_size, hidden, config_.attention_bias),
      linear("self_attn.o_proj", hidden, q_size, config_.attention_bias),
      linear("mlp.gate_proj", inner, hidden, config_.mlp_bias),
      linear("mlp.up_proj", inner, hidden, config_.mlp_bias),
      linear("mlp.down_proj", hidden, inner, config_.mlp_bias),
  };
}

Linear Decoder::take_head(TensorSource& source, std::optional<PackedFormat> format) const {
  if (format) format = PackedFormat::kInt8;
  const bool tied = config_.tie_word_embeddings;
  if (tied && !format) return Linear(embedding_);
  const std::string name = tied ? kPrefix + "embed_tokens" : "language_model.lm_head";
  return Linear(source, name, config_.vocab_size, config_.hidden_size, false, format);
}

Decoder::Decoder(const TextConfig& config, TensorSource& source, at::Device device,
                 std::optional<PackedFormat> format)
    : config_(config),
      rope_(config, device),
      embedding_(
          source.take(kPrefix + "embed_tokens.weight", {config.vocab_size, config.hidden_size})),
      final_norm_(source.take(kPrefix + "norm.weight", {config.hidden_size})),
      lm_head_(take_head(source, format)) {
  for (int64_t i = 0; i < config_.layers; ++i) layers_.push_back(take_layer(source, i, format));
}

at::Tensor Decoder::normalize(const at::Tensor& x, const at::Tensor& weight) const {
  return rms_norm(x, weight, config_.rms_norm_eps);
}

at::Tensor Decoder::attend(const at::Tensor& x, int64_t index, const DecoderBatch& batch,
                           const Rope::Angles& angles, KvCache& cache) const {
  const Layer& layer = layers_[index];
  const int64_t rows = x.size(0);
  const auto heads = [&](const Linear& linear, int64_t count) {  // [rows, count, head_dim]
    return linear.forward(x).view({rows, count, config_.head_dim});
  };
  const at::Tensor q = rotate(heads(layer.q, config_.heads), angles.cos, angles.sin);
  const at::Tensor k = rotate(heads(layer.k, config_.kv_heads), angles.cos, angles.sin);
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
  return layer.o.forward(mixed);
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
    const at::Tensor gate = activate(layer.gate.forward(normed), config_.activation);
    const at::Tensor inner = gate * layer.up.forward(normed);
    x = x + layer.down.forward(inner);
  }
  const at::Tensor last = normalize(at::index_select(x, 0, batch.logit_rows), final_norm_);
  return lm_head_.forward(last).to(at::kFloat);
}

}  // namespace vlm
