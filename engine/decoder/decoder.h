// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "decoder/attention.h"
#include "decoder/kv_cache.h"
#include "decoder/rope.h"
#include "layers/linear.h"
#include "loader/config.h"
#include "loader/tensors.h"

namespace vlm {

/// Consecutive tokens of one prompt.
struct PromptRows {
  int64_t rows = 0;
  at::Tensor sequence;  ///< int64: slots of the prompt from its start to their end; undefined where
                        ///< they are its first
};

/// Rows of one step, packed without padding: first those of prompts one after another, then one row
/// for each sequence that goes on. Tensors lie on the decoder's device.
struct DecoderBatch {
  at::Tensor positions;  ///< int64 [rows]
  at::Tensor lengths;    ///< int64 [rows]: tokens of the row's sequence so far, its prompt whole
  at::Tensor slots;      ///< int64 [rows]: where the row's keys and values go
  std::vector<PromptRows> prompts;
  CachedRows cached;      ///< of the rows after the prompts
  at::Tensor logit_rows;  ///< int64 [results]: rows whose logits are wanted, if any
};

/// Llama's decoder (transformers models/llama/modeling_llama.py). Constant after
/// construction, but for where weights lie.
class Decoder {
 public:
  /// `packing`: how the matrices are packed, where they are. Int4 leaves the output's table at
  /// int8, whose rounding shows the most and whose size the least.
  Decoder(const TextConfig& config, TensorSource& source, at::Device device,
          std::optional<Packing> packing);

  /// [vocab_size, hidden_size]
  const at::Tensor& embedding_table() const { return embedding_; }

  /// embeds: [rows, hidden_size] → float32 logits [results, vocab_size]; the cache gains the rows'
  /// keys and values.
  at::Tensor forward(const at::Tensor& embeds, const DecoderBatch& batch, KvCache& cache) const;

  struct Layer {
    at::Tensor input_norm, post_attention_norm;  ///< [hidden_size]
    LinearGroup qkv;
    Linear o;
    LinearGroup gate_up;
    Linear down;
  };

  // For whoever runs the same network in other steps (gpu_step.h).
  const TextConfig& config() const { return config_; }
  const Rope& rope() const { return rope_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const at::Tensor& final_norm() const { return final_norm_; }
  const Linear& lm_head() const { return lm_head_; }

  /// All matrices that a step multiplies with.
  std::vector<Linear*> matrices();

 private:
  struct Heads {
    at::Tensor q, k, v;  // [rows, heads or kv_heads, head_dim]
  };

  Layer take_layer(TensorSource& source, int64_t index, std::optional<Packing> packing) const;
  Linear take_head(TensorSource& source, std::optional<Packing> packing) const;
  Heads rotate_and_store(const std::vector<at::Tensor>& qkv, int64_t index,
                         const DecoderBatch& batch, const Rope::Angles& angles,
                         KvCache& cache) const;
  at::Tensor attend(const at::Tensor& x, int64_t index, const DecoderBatch& batch,
                    const Rope::Angles& angles, KvCache& cache) const;

  TextConfig config_;
  Rope rope_;
  at::Tensor embedding_, final_norm_;
  std::vector<Layer> layers_;
  Linear lm_head_;
};

}  // namespace vlm
