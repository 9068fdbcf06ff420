// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/decoder.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include "cuda/tensor_ops.h"
#include "kernels/fused.h"

namespace vlm {
namespace {

const std::string kPrefix = "language_model.model.";

}  // namespace

Decoder::Layer Decoder::take_layer(TensorSource& source, int64_t index,
                                   std::optional<Packing> packing) const {
  const std::string layer = kPrefix + "layers." + std::to_string(index) + ".";
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  const int64_t q_size = config_.heads * config_.head_dim;
  const int64_t kv_size = config_.kv_heads * config_.head_dim;
  const auto part = [&](const char* name, int64_t outputs) {
    return LinearPart{layer + name, outputs};
  };
  return {
      source.take(layer + "input_layernorm.weight", {hidden}),
      source.take(layer + "post_attention_layernorm.weight", {hidden}),
      LinearGroup(source,
                  {part("self_attn.q_proj", q_size), part("self_attn.k_proj", kv_size),
                   part("self_attn.v_proj", kv_size)},
                  hidden, config_.attention_bias, packing),
      Linear(source, {part("self_attn.o_proj", hidden)}, q_size, config_.attention_bias, packing),
      LinearGroup(source, {part("mlp.gate_proj", inner), part("mlp.up_proj", inner)}, hidden,
                  config_.mlp_bias, packing),
      Linear(source, {part("mlp.down_proj", hidden)}, inner, config_.mlp_bias, packing),
  };
}

Linear Decoder::take_head(TensorSource& source, std::optional<Packing> packing) const {
  if (packing) packing->format = PackedFormat::kInt8;
  const bool tied = config_.tie_word_embeddings;
  if (tied && !packing) return Linear(embedding_);
  const std::string name = tied ? kPrefix + "embed_tokens" : "language_model.lm_head";
  return Linear(source, {{name, config_.vocab_size}}, config_.hidden_size, false, packing);
}

Decoder::Decoder(const TextConfig& config, TensorSource& source, at::Device device,
                 std::optional<Packing> packing)
    : config_(config),
      rope_(config, device),
      embedding_(
          source.take(kPrefix + "embed_tokens.weight", {config.vocab_size, config.hidden_size})),
      final_norm_(source.take(kPrefix + "norm.weight", {config.hidden_size})),
      lm_head_(take_head(source, packing)) {
  for (int64_t i = 0; i < config_.layers; ++i) layers_.push_back(take_layer(source, i, packing));
}

std::vector<Linear*> Decoder::matrices() {
  std::vector<Linear*> all;
  for (Layer& layer : layers_) {
    for (Linear& part : layer.qkv.parts()) all.push_back(&part);
    all.push_back(&layer.o);
    for (Linear& part : layer.gate_up.parts()) all.push_back(&part);
    all.push_back(&layer.down);
  }
  all.push_back(&lm_head_);
  return all;
}

Decoder::Heads Decoder::rotate_and_store(const std::vector<at::Tensor>& qkv, int64_t index,
                                         const DecoderBatch& batch, const Rope::Angles& angles,
                                         KvCache& cache) const {
  const auto heads = [&](const at::Tensor& part) {
    return part.view({part.size(0), -1, config_.head_dim});
  };
  Heads all = {heads(qkv[0]), heads(qkv[1]), heads(qkv[2])};
  if (all.q.is_cuda() &&
      gpu_rotate_store(all.q, all.k, all.v,
                       rotate_target(config_, angles.cos, angles.sin, {}, batch.slots,
                                     cache.keys(index), cache.values(index)))) {
    return all;
  }
  all.q = rotate(all.q, angles.cos, angles.sin);
  all.k = rotate(all.k, angles.cos, angles.sin);
  cache.store(index, batch.slots, all.k, all.v);
  return all;
}

at::Tensor Decoder::attend(const at::Tensor& x, int64_t index, const DecoderBatch& batch,
                           const Rope::Angles& angles, KvCache& cache) const {
  const Layer& layer = layers_[index];
  const auto [q, k, v] = rotate_and_store(layer.qkv.forward(x), index, batch, angles, cache);
  std::vector<at::Tensor> parts;
  int64_t row = 0;
  for (const PromptRows& prompt : batch.prompts) {
    const auto seen = [&](const at::Tensor& own, const at::Tensor& cached) {
      return prompt.sequence.defined() ? at::index_select(cached, 0, prompt.sequence)
                                       : own.narrow(0, row, prompt.rows);
    };
    parts.push_back(prompt_attention(config_, q.narrow(0, row, prompt.rows),
                                     seen(k, cache.keys(index)), seen(v, cache.values(index))));
    row += prompt.rows;
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
  angles.cos = angles.cos.to(embeds.scalar_type()).contiguous();
  angles.sin = angles.sin.to(embeds.scalar_type()).contiguous();
  const double eps = config_.rms_norm_eps;
  Normed state = {embeds, rms_norm(embeds, layers_[0].input_norm, eps)};
  for (int64_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor mixed = attend(state.normed, i, batch, angles, cache);
    const bool last = i + 1 == config_.layers;
    if (last && batch.logit_rows.size(0) == 0) {
      return at::empty({0, config_.vocab_size}, embeds.options().dtype(at::kFloat));
    }
    state = add_norm(state.sum, mixed, layer.post_attention_norm, eps);
    const std::vector<at::Tensor> both = layer.gate_up.forward(state.normed);
    at::Tensor delta = layer.down.forward(gated(both[0], both[1], config_.activation));
    if (last) {
      state.sum = at::index_select(state.sum, 0, batch.logit_rows);
      delta = at::index_select(delta, 0, batch.logit_rows);
    }
    state = add_norm(state.sum, delta, last ? final_norm_ : layers_[i + 1].input_norm, eps);
  }
  return lm_head_.forward(state.normed).to(at::kFloat);
}

}  // namespace vlm
