// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

namespace vlm {

// Element-wise steps of the decoder, each in one pass over memory where x lies on the CPU in
// float32 or bfloat16, else as libtorch's operations. Both round where the reference rounds: to x's
// type after each of its operations. Reentrant.

/// weight · x / √(mean(x²) + eps) over the last dimension, the quotient rounded to x's type first
/// (transformers LlamaRMSNorm). x: [..., size]; weight: [size], of x's type.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// x · cos + rotate_half(x) · sin. x: [rows, heads, head_dim]; cos, sin: [rows, 1, head_dim], of
/// x's type.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace vlm
