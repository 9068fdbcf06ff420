// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <vector>

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

/// What a thread needs for one part at a time. Memory is taken when there is more than before.
struct AttentionScratch {
  std::vector<float> query;       ///< [heads / kv_heads, head_dim]
  std::vector<float> scores;      ///< [heads, visible positions]
  std::vector<uint16_t> weights;  ///< the same in bfloat16
  std::vector<float> sums;        ///< [heads, head_dim]

  /// For all parts of rows of so many positions, so that none takes more.
  void make_room(const PagedAttentionArgs& args, int64_t longest);

  static constexpr int64_t kBytesPerScore = sizeof(float) + sizeof(uint16_t);
  /// With what fills the last register.
  static int64_t padded_span(int64_t positions) { return (positions + 15) / 16 * 16; }
  static int64_t padded_dim(int64_t head_dim) { return (head_dim + 63) / 64 * 64; }
};

/// Of a row's kv heads, how many next to each other one of `threads` should take at a time: as many
/// as leave work for the others, since memory is read faster in order. Reentrant.
int64_t kv_heads_at_once(const PagedAttentionArgs& args, int threads);

/// The same for some kv heads of one row on the calling thread: for callers that share out the work
/// themselves. Which heads are taken together changes nothing. Reentrant.
void paged_attention_part(const PagedAttentionArgs& args, int64_t row, int64_t kv_head,
                          int64_t kv_heads, AttentionScratch& scratch);

/// The same as three plain loops in double precision, one head of one row at a time: what every
/// variant is tested against. float32 only. Reentrant.
void paged_attention_reference(const PagedAttentionArgs& args);

}  // namespace vlm
