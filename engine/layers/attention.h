// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vlm {

/// What of whole sequences attends to what.
struct AttentionHeads {
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< divides heads
  int64_t head_dim = 0;
  bool causal = false;
  int64_t window = 0;  ///< causal: the newest `window` positions are visible; 0: all
};

/// Attention within each of `sequences` sequences of the same length. k and v [sequences · tokens,
/// kv_heads · head_dim], q [sequences · rows, heads · head_dim]: of each sequence's last `rows`
/// tokens; rows may lie further apart → [sequences · rows, heads · head_dim]. Takes our kernel
/// where it is the faster one, else libtorch's operation.
at::Tensor whole_attention(const AttentionHeads& shape, int64_t sequences, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& v);

}  // namespace vlm
