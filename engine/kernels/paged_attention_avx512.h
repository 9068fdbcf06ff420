// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/paged_attention.h"

#if defined(__x86_64__)

namespace vlm {

/// paged_attention_part() of bfloat16 by products of bfloat16, where has_avx512_bfloat16(): scores'
/// weights are rounded to bfloat16 before values are mixed, as the reference's are. Reentrant.
void paged_attention_avx512(const PagedAttentionArgs& args, int64_t row, int64_t kv_head,
                            int64_t kv_heads, AttentionScratch& scratch);

}  // namespace vlm

#endif
