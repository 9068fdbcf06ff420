// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/kernel_type.h"

namespace vlm {

/// Attention of one new token in each of `rows` sequences over its cached past, itself included.
/// All pointers lie on one device; `type` is that of q, caches and out. Scores and sums are
/// float32.
struct PagedAttentionArgs {
  const void* q = nullptr;        ///< [rows, heads, head_dim]
  const void* k_cache = nullptr;  ///< [slots, kv_heads, head_dim]
  const void* v_cache = nullptr;  ///< [slots, kv_heads, head_dim]
  void* out = nullptr;            ///< [rows, heads, head_dim]
  const int32_t* slot_table =
      nullptr;  ///< [rows, table_stride]: slot of each position, oldest first
  int64_t table_stride = 0;
  const int32_t* lengths = nullptr;  ///< [rows]: positions in use, ≥ 1
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< divides heads; query head h reads kv head h / (heads / kv_heads)
  int64_t head_dim = 0;
  int64_t window = 0;  ///< the newest `window` positions are visible; 0: all
  float scale = 1;
  KernelType type = KernelType::kFloat32;
};

/// On the CPU, float32 or bfloat16; spreads over libtorch's threads. Reentrant.
void paged_attention_cpu(const PagedAttentionArgs& args);

/// The same as three plain loops in double precision, one head of one row at a time: what every
/// variant is tested against. float32 only. Reentrant.
void paged_attention_reference(const PagedAttentionArgs& args);

}  // namespace vlm
