// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>
#include <vector>

#include "kernels/packed_matrix.h"

namespace vlm {

/// x · Wᵀ + bias for many rows. x: [..., inputs]; weight: [outputs, inputs] in x's type; bias:
/// [outputs] in x's type or undefined → [..., outputs] in x's type. Where the processor multiplies
/// no 16-bit numbers, such products go through float32, which is several times faster than what
/// libtorch does with them there; sums are float32 and rounded once, as in libtorch. Reentrant.
at::Tensor dense(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// Weights as product.h has them.
struct ProductWeights {
  PackedShape shape;
  at::Tensor weights;     ///< bytes or bfloat16
  at::Tensor bias;        ///< [outputs] in bfloat16 or undefined
  bool in_bytes = false;  ///< by byte_products()
};
/// x · Wᵀ + bias with each of the weights, which agree in all but outputs, by our own products,
/// which must run here. x: bfloat16, on the CPU.
std::vector<at::Tensor> products(const at::Tensor& x, const std::vector<ProductWeights>& weights);

/// Whether libtorch has fast products of this 16-bit type on this processor, rounded once.
bool multiplies_halves(at::ScalarType type);

/// Writes the weights of the outputs from `first` on to `rows`, float32 [count, inputs].
using UnpackRows = c10::function_ref<void(int64_t first, const at::Tensor& rows)>;

/// The same on the CPU with weights that `unpack` gives part by part, so that they need no memory
/// as a whole.
at::Tensor dense_by_parts(const at::Tensor& x, int64_t outputs, const at::Tensor& bias,
                          UnpackRows unpack);

}  // namespace vlm
