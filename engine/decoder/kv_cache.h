// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "loader/config.h"

namespace vlm {

/// Keys and values of every cached token, allocated once. A slot holds one token; which slots make
/// a sequence is the caller's business. Thread-bound.
class KvCache {
 public:
  KvCache(const TextConfig& config, int64_t slots, at::TensorOptions options);

  /// Bytes that one slot takes in all layers.
  static int64_t slot_bytes(const TextConfig& config, int64_t element_size);

  /// keys, values: [rows, kv_heads, head_dim]; slots: int64 [rows].
  void store(int64_t layer, const at::Tensor& slots, const at::Tensor& keys,
             const at::Tensor& values);

  /// [slots, kv_heads, head_dim]
  const at::Tensor& keys(int64_t layer) const { return layers_[layer].keys; }
  const at::Tensor& values(int64_t layer) const { return layers_[layer].values; }

 private:
  struct Layer {
    at::Tensor keys, values;
  };
  std::vector<Layer> layers_;
};

}  // namespace vlm
