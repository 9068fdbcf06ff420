// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "kernels/paged_attention.h"

namespace vlm {

/// GPU variant of kernels/paged_attention.h: head_dim up to 256, float32, float16, bfloat16. Enqueues on `stream`;
/// false, with nothing enqueued, for anything else.
bool paged_attention_cuda(const PagedAttentionArgs& args, void* stream);

}  // namespace vlm
