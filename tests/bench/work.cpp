// SPDX-License-Identifier: LGPL-2.1-or-later
#include "bench/work.h"

#include <algorithm>

namespace bench {
namespace {

using vlm::PackedFormat;

// Blocks of the tower up to the last hidden state that is taken.
int64_t tower_blocks(const vlm::ModelConfig& config) {
  int64_t blocks = 0;
  for (const int64_t layer : config.feature_layers) {
    blocks = std::max(blocks, layer < 0 ? config.vision.layers + 1 + layer : layer);
  }
  return blocks;
}

int64_t picture_operations(const vlm::ModelConfig& config) {
  const vlm::VisionConfig& vision = config.vision;
  const int64_t hidden = vision.hidden_size, patches = vision.patches();
  const int64_t patch = vision.channels * vision.patch_size * vision.patch_size * hidden;
  const int64_t block = 4 * hidden * hidden + 2 * hidden * vision.intermediate_size;
  int64_t projector = 0;
  for (int64_t i = 0; i < config.projector_layers; ++i) {
    projector +=
        (i == 0 ? config.feature_size() : config.text.hidden_size) * config.text.hidden_size;
  }
  return 2 * (patches * patch + (patches + 1) * tower_blocks(config) * block +
              config.image_tokens() * projector);
}

}  // namespace

Work work_of(const vlm::ModelConfig& config, int64_t element_size,
             std::optional<PackedFormat> packed) {
  const vlm::TextConfig& text = config.text;
  const int64_t q = text.heads * text.head_dim, kv = text.kv_heads * text.head_dim;
  Work work;
  const auto add = [&](int64_t copies, int64_t outputs, int64_t inputs,
                       std::optional<PackedFormat> format) {
    work.token_parameters += copies * outputs * inputs;
    work.token_bytes += copies * (format ? vlm::PackedShape{*format, outputs, inputs}.bytes()
                                         : outputs * inputs * element_size);
  };
  add(text.layers, q + 2 * kv, text.hidden_size, packed);
  add(text.layers, text.hidden_size, q, packed);
  add(text.layers, 2 * text.intermediate_size, text.hidden_size, packed);
  add(text.layers, text.hidden_size, text.intermediate_size, packed);
  work.prompt_token_operations = 2 * work.token_parameters;
  work.head_operations = 2 * text.vocab_size * text.hidden_size;
  add(1, text.vocab_size, text.hidden_size,
      packed ? std::optional(PackedFormat::kInt8) : std::nullopt);
  work.picture_operations = picture_operations(config);
  work.slot_bytes = text.layers * 2 * kv * element_size;
  return work;
}

}  // namespace bench
