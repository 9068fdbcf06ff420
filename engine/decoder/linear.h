// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "kernels/packed_matrix.h"
#include "loader/tensors.h"

namespace vlm {

/// x · Wᵀ + b with the weights in the model's type, or packed into fewer bits while loading. On the
/// CPU few rows go through our own kernels, which read each weight once; many go through libtorch's
/// matrix product, for which packed weights are unpacked part by part. Constant after construction.
class Linear {
 public:
  /// Takes `name`.weight [outputs, inputs] and, where `bias`, `name`.bias [outputs]. Packed weights
  /// lie on the CPU.
  Linear(TensorSource& source, const std::string& name, int64_t outputs, int64_t inputs, bool bias,
         std::optional<PackedFormat> format);
  /// Uses weights that somebody else holds too, as they are.
  explicit Linear(at::Tensor weight) : weight_(std::move(weight)) {}

  /// x: [rows, inputs] → [rows, outputs] in x's type. A row's result does not depend on how many
  /// others there are as long as the same path is taken.
  at::Tensor forward(const at::Tensor& x) const;

 private:
  void pack(const at::Tensor& stored);
  at::Tensor multiply_few(const at::Tensor& x, const PackedShape& shape,
                          const at::Tensor& weights) const;
  at::Tensor multiply_many(const at::Tensor& x) const;

  at::Tensor weight_;  // [outputs, inputs]; undefined where packed
  at::Tensor packed_;  // bytes of shape_
  PackedShape shape_;
  at::Tensor bias_;  // [outputs] or undefined
};

}  // namespace vlm
