// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace vlm {

/// Largest extent of a launch grid's second dimension on every architecture.
inline constexpr int64_t kMaxGridY = 65535;

/// The kv head that a query head reads.
VLM_HOST_DEVICE inline int64_t kv_head_of(int64_t head, int64_t heads, int64_t kv_heads) {
  return head / (heads / kv_heads);
}

/// First element of one head of one row in [rows, heads, head_dim].
VLM_HOST_DEVICE inline int64_t head_offset(int64_t row, int64_t head, int64_t heads,
                                           int64_t head_dim) {
  return (row * heads + head) * head_dim;
}

/// First element of one slot's kv head in [slots, kv_heads, head_dim].
VLM_HOST_DEVICE inline int64_t cache_offset(int32_t slot, int64_t kv_head, int64_t kv_heads,
                                            int64_t head_dim) {
  return (static_cast<int64_t>(slot) * kv_heads + kv_head) * head_dim;
}

/// Oldest position that the newest of `length` tokens sees; `window` 0: all.
VLM_HOST_DEVICE inline int64_t first_visible(int64_t length, int64_t window) {
  return window > 0 && length > window ? length - window : 0;
}

/// Positions of each of `splits` parts of a past of `span`: the last ones may be shorter, or empty.
VLM_HOST_DEVICE inline int64_t part_size(int64_t span, int64_t splits) {
  return (span + splits - 1) / splits;
}

}  // namespace vlm
