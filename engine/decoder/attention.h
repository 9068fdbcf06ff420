// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/paged_attention.h"
#include "loader/config.h"

namespace vlm {

/// Sequences that go on by one token, as the cache sees them. Fixed-capacity tensors may be passed
/// as narrowed views.
struct CachedRows {
  at::Tensor
      slot_table;  ///< int32 [rows, capacity]: slot of each position, oldest first; contiguous rows
  at::Tensor lengths;   ///< int32 [rows]: positions in use, the new token included
  int64_t longest = 0;  ///< largest of `lengths`, for code that needs it on the host

  int64_t rows() const { return slot_table.defined() ? slot_table.size(0) : 0; }
};

/// Of what the kernels take (kernels/paged_attention.h) that which is the model's: no rows yet.
PagedAttentionArgs attention_shape(const TextConfig& config, KernelType type);

/// What the kernels take. q and out: contiguous, with room for
/// cached.rows() rows. The tensors must live until the kernel has run.
PagedAttentionArgs attention_args(const TextConfig& config, const at::Tensor& q,
                                  const at::Tensor& keys, const at::Tensor& values,
                                  const CachedRows& cached, const at::Tensor& out, KernelType type);

/// Causal attention of a prompt's tokens over it. q [rows, heads, head_dim]: the last `rows` of
/// `tokens`; k and v [tokens, kv_heads, head_dim] → [rows, heads · head_dim].
at::Tensor prompt_attention(const TextConfig& config, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v);

/// Attention of one new token in each sequence over its cached past. q [rows, heads, head_dim],
/// keys and values [slots, kv_heads, head_dim] → [rows, heads · head_dim]. Takes our kernel where
/// there is one for the device and type, else libtorch's operations.
at::Tensor cached_attention(const TextConfig& config, const at::Tensor& q, const at::Tensor& keys,
                            const at::Tensor& values, const CachedRows& cached);

/// The same by libtorch's operations alone: works on every device and type.
at::Tensor cached_attention_generic(const TextConfig& config, const at::Tensor& q,
                                    const at::Tensor& keys, const at::Tensor& values,
                                    const CachedRows& cached);

}  // namespace vlm
