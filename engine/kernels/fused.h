// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "loader/config.h"

namespace vlm {

// Element-wise steps of the decoder, each in one pass over memory where x lies on the CPU in
// float32 or bfloat16 or on a GPU that the GPU module serves, else as libtorch's operations. All
// round where the reference rounds: to x's type after each of its operations. Reentrant.

/// weight · x / √(mean(x²) + eps) over the last dimension, the quotient rounded to x's type first
/// (transformers LlamaRMSNorm). x: [..., size]; weight: [size], of x's type.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

struct Normed {
  at::Tensor sum;     ///< x + delta
  at::Tensor normed;  ///< rms_norm of that
};
/// The end of one half of a layer and the beginning of the next. delta: of x's shape and type.
Normed add_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight, double eps);

/// activation(gate) · up: [rows, size] both.
at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, Activation activation);

/// x · cos + rotate_half(x) · sin. x: [rows, heads, head_dim]; cos, sin: [rows, 1, head_dim], of
/// x's type.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace vlm
