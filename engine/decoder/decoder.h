// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "decoder/attention.h"
#include "decoder/kv_cache.h"
#include "decoder/rope.h"
#include "loader/config.h"
#include "loader/tensors.h"

namespace vlm {

/// Rows of one step, packed without padding: first the tokens of whole prompts one after another,
/// then one row for each sequence that goes on. Tensors lie on the decoder's device.
struct DecoderBatch {
  at::Tensor positions;                 ///< int64 [rows]
  at::Tensor lengths;                   ///< int64 [rows]: tokens of the row's sequence so far
  at::Tensor slots;                     ///< int64 [rows]: where the row's keys and values go
  std::vector<int64_t> prompt_lengths;  ///< rows of each prompt
  CachedRows cached;                    ///< of the rows after the prompts
  at::Tensor logit_rows;                ///< int64 [results]: rows whose logits are wanted
};

/// Llama's decoder (transformers models/llama/modeling_llama.py). Weights constant after
/// construction.
class Decoder {
 public:
  Decoder(const TextConfig& config, TensorSource& source, at::Device device);

  /// [vocab_size, hidden_size]
  const at::Tensor& embedding_table() const { return embedding_; }

  /// embeds: [rows, hidden_size] → float32 logits [results, vocab_size]; the cache gains the rows'
  /// keys and values.
  at::Tensor forward(const at::Tensor& embeds, const DecoderBatch& batch, KvCache& cache) const;

 private:
  struct Linear {
    at::Tensor weight, bias;  // [out, in], [out] or undefined
  };
  struct Layer {
    at::Tensor input_norm, post_attention_norm;  // [hidden]
    Linear q, k, v, o, gate, up, down;
  };

  static Linear take_linear(TensorSource& source, const std::string& name, int64_t out, int64_t in,
                            bool bias);
  Layer take_layer(TensorSource& source, int64_t index) const;
  at::Tensor normalize(const at::Tensor& x, const at::Tensor& weight) const;
  at::Tensor attend(const at::Tensor& x, int64_t index, const DecoderBatch& batch,
                    const Rope::Angles& angles, KvCache& cache) const;

  TextConfig config_;
  Rope rope_;
  at::Tensor embedding_, final_norm_, lm_head_;
  std::vector<Layer> layers_;
};

}  // namespace vlm
