// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/kv_cache.h"

#include <ATen/ops/empty.h>

namespace vlm {

KvCache::KvCache(const TextConfig& config, int64_t slots, at::TensorOptions options) {
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.push_back({at::empty({slots, config.kv_heads, config.head_dim}, options),
                       at::empty({slots, config.kv_heads, config.head_dim}, options)});
  }
}

int64_t KvCache::slot_bytes(const TextConfig& config, int64_t element_size) {
  return config.layers * 2 * config.kv_heads * config.head_dim * element_size;
}

void KvCache::store(int64_t layer, const at::Tensor& slots, const at::Tensor& keys,
                    const at::Tensor& values) {
  layers_[layer].keys.index_copy_(0, slots, keys);
  layers_[layer].values.index_copy_(0, slots, values);
}

}  // namespace vlm
