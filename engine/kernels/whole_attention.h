// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

namespace vlm {

/// Attention within whole sequences of the same length: of each of a sequence's last rows over all
/// of them, or, where causal, over itself and those before. All pointers lie on the CPU, all values
/// are bfloat16.
struct WholeAttentionArgs {
  const uint16_t* q = nullptr;  ///< [sequences · queries, heads, head_dim], rows q_stride apart
  const uint16_t* k = nullptr;  ///< [sequences · rows, kv_heads, head_dim], rows k_stride apart
  const uint16_t* v = nullptr;  ///< the same, rows v_stride apart
  uint16_t* out = nullptr;      ///< [sequences · queries, heads, head_dim], contiguous
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  int64_t sequences = 0;
  int64_t rows = 0;
  int64_t queries = 0;  ///< the last ones of `rows`
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< divides heads; query head h reads kv head h / (heads / kv_heads)
  int64_t head_dim = 0;
  bool causal = false;
  int64_t window = 0;  ///< causal: the newest `window` rows are visible; 0: all
  float scale = 1;
};

/// Whether whole_attention_cpu() runs here and is faster than libtorch's. Reentrant.
bool has_whole_attention();

/// Scores, their softmax and sums are float32; weights are rounded to bfloat16 before they meet the
/// values, as in libtorch. A row's result does not depend on the other sequences. Spreads over
/// libtorch's threads. Reentrant.
void whole_attention_cpu(const WholeAttentionArgs& args);

}  // namespace vlm
