// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/manifest.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

namespace vlm {
namespace {

constexpr const char* kEmbedding = "language_model.model.embed_tokens.weight";
constexpr const char* kHead = "language_model.lm_head.weight";

/// Collects expectations under a growing prefix.
class List {
 public:
  void add(std::string name, std::vector<int64_t> shape, bool needed) {
    tensors_.push_back({std::move(name), std::move(shape), needed});
  }
  void linear(const std::string& name, int64_t out, int64_t in, bool bias, bool needed = true) {
    add(name + ".weight", {out, in}, needed);
    if (bias) add(name + ".bias", {out}, needed);
  }
  void layer_norm(const std::string& name, int64_t size, bool needed = true) {
    add(name + ".weight", {size}, needed);
    add(name + ".bias", {size}, needed);
  }
  std::vector<ExpectedTensor> take() { return std::move(tensors_); }

 private:
  std::vector<ExpectedTensor> tensors_;
};

void add_vision(List& list, const ModelConfig& config) {
  const VisionConfig& vision = config.vision;
  const int64_t width = vision.hidden_size;
  const std::string tower = "vision_tower.vision_model.";
  list.add(tower + "embeddings.class_embedding", {width}, true);
  list.add(tower + "embeddings.patch_embedding.weight",
           {width, vision.channels, vision.patch_size, vision.patch_size}, true);
  list.add(tower + "embeddings.position_embedding.weight", {vision.patches() + 1, width}, true);
  list.layer_norm(tower + "pre_layrnorm", width);
  const int64_t used = used_vision_layers(config);
  for (int64_t i = 0; i < vision.layers; ++i) {
    const std::string layer = tower + "encoder.layers." + std::to_string(i) + ".";
    const bool needed = i < used;
    list.layer_norm(layer + "layer_norm1", width, needed);
    list.layer_norm(layer + "layer_norm2", width, needed);
    for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      list.linear(layer + "self_attn." + part, width, width, true, needed);
    }
    list.linear(layer + "mlp.fc1", vision.intermediate_size, width, true, needed);
    list.linear(layer + "mlp.fc2", width, vision.intermediate_size, true, needed);
  }
  list.layer_norm(tower + "post_layernorm", width, false);
}

void add_text(List& list, const TextConfig& text) {
  const std::string model = "language_model.model.";
  const int64_t q_width = text.heads * text.head_dim;
  const int64_t kv_width = text.kv_heads * text.head_dim;
  list.add(kEmbedding, {text.vocab_size, text.hidden_size}, true);
  list.add(kHead, {text.vocab_size, text.hidden_size}, !text.tie_word_embeddings);
  list.add(model + "norm.weight", {text.hidden_size}, true);
  for (int64_t i = 0; i < text.layers; ++i) {
    const std::string layer = model + "layers." + std::to_string(i) + ".";
    list.add(layer + "input_layernorm.weight", {text.hidden_size}, true);
    list.add(layer + "post_attention_layernorm.weight", {text.hidden_size}, true);
    const bool bias = text.attention_bias;
    list.linear(layer + "self_attn.q_proj", q_width, text.hidden_size, bias);
    list.linear(layer + "self_attn.k_proj", kv_width, text.hidden_size, bias);
    list.linear(layer + "self_attn.v_proj", kv_width, text.hidden_size, bias);
    list.linear(layer + "self_attn.o_proj", text.hidden_size, q_width, bias);
    list.linear(layer + "mlp.gate_proj", text.intermediate_size, text.hidden_size, text.mlp_bias);
    list.linear(layer + "mlp.up_proj", text.intermediate_size, text.hidden_size, text.mlp_bias);
    list.linear(layer + "mlp.down_proj", text.hidden_size, text.intermediate_size, text.mlp_bias);
  }
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::string and_more(size_t others) {
  return others == 0 ? "" : " (and " + std::to_string(others) + " more)";
}

std::string spelt(const std::string& name, const StoredTensor& tensor) {
  return tensor.spelling == name ? name : name + " (stored as " + tensor.spelling + ")";
}

}  // namespace

int64_t used_vision_layers(const ModelConfig& config) {
  int64_t used = 0;
  for (const int64_t layer : config.feature_layers) {
    used = std::max(used, layer < 0 ? config.vision.layers + 1 + layer : layer);
  }
  return used;
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  List list;
  add_vision(list, config);
  const int64_t width = config.text.hidden_size;
  for (int64_t i = 0; i < config.projector_layers; ++i) {
    list.linear("multi_modal_projector.linear_" + std::to_string(i + 1), width,
                i == 0 ? config.feature_size() : width, config.projector_bias);
  }
  if (config.anyres.merge == PatchMerge::kSpatialUnpad) list.add("image_newline", {width}, true);
  add_text(list, config.text);
  return list.take();
}

void tie_embeddings(ModelConfig& config, Weights& weights) {
  if (!config.text.tie_word_embeddings || !weights.find(kHead)) return;
  if (weights.find(kEmbedding)) {
    config.text.tie_word_embeddings = false;
  } else {
    weights.alias(kEmbedding, kHead);
  }
}

Status verify_weights(const ModelConfig& config, const Weights& weights,
                      const std::string& directory) {
  std::map<std::string, std::vector<int64_t>, std::less<>> known;
  std::vector<std::string> missing;
  const bool tied = config.text.tie_word_embeddings;
  for (ExpectedTensor& expected : expected_tensors(config)) {
    const StoredTensor* found = weights.find(expected.name);
    const bool replaced = tied && expected.name == kEmbedding && weights.find(kHead);
    if (!found && expected.needed && !replaced) missing.push_back(expected.name);
    if (found && found->shape != expected.shape) {
      return Error{ErrorKind::kInvalidModel,
                   found->file + ": tensor " + spelt(expected.name, *found) + " has the shape " +
                       shape_text(found->shape) + ", but config.json asks for " +
                       shape_text(expected.shape),
                   {}};
    }
    known.emplace(std::move(expected.name), std::move(expected.shape));
  }
  if (!missing.empty()) {
    return Error{ErrorKind::kInvalidModel,
                 directory + ": tensor " + missing[0] + and_more(missing.size() - 1) +
                     " is missing, but config.json asks for it with the shape " +
                     shape_text(known.at(missing[0])) + "; fetch the checkpoint again",
                 {}};
  }
  std::vector<std::string> extra;
  const StoredTensor* first = nullptr;
  for (const auto& [name, tensor] : weights.tensors()) {
    if (known.contains(name)) continue;
    if (!first) first = &tensor;
    extra.push_back(spelt(name, tensor));
  }
  if (first) {
    return Error{ErrorKind::kInvalidModel,
                 first->file + ": tensor " + extra[0] + " with the shape " +
                     shape_text(first->shape) + and_more(extra.size() - 1) +
                     " has no place in the model that config.json describes",
                 {}};
  }
  return ok_status();
}

}  // namespace vlm
