// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "cuda/module.h"
#include "loader/config.h"

namespace vlm {

// The GPU module's kernels on libtorch's tensors, enqueued on libtorch's stream. Where there is no
// kernel for the tensors (they lie on a CPU, the module is missing), the functions that compute say
// so and leave everything as it was.

std::optional<KernelType> kernel_type(at::ScalarType type);
GateFunction gate_function(Activation activation);

/// The module where `tensor` lies on a GPU in a type that kernels know; else null.
const CudaModule* module_for(const at::Tensor& tensor);

/// Throws gpu_failure() with the module's reason where `done` is false.
void require(bool done, const char* what);

/// `sum` = x + delta, `normed` = its norm (AddNormArgs); delta may be undefined, and sum is x then.
bool gpu_add_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                  double eps, const at::Tensor& sum, const at::Tensor& normed);

/// out = activation(gate) · up, or activation(gate) where up is undefined. gate and up: [rows,
/// size], rows may be further apart; out: contiguous.
bool gpu_gate(const at::Tensor& gate, const at::Tensor& up, Activation activation,
              const at::Tensor& out);

/// RotateStoreArgs. q, k, v: [rows, heads, head_dim], rows may be further apart. cos, sin:
/// [angles, …, head_dim]. angles: int64 [rows] or undefined; slots: int64 [rows].
bool gpu_rotate_store(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const RotateTarget& target);

/// The target of one layer.
RotateTarget rotate_target(const TextConfig& config, const at::Tensor& cos, const at::Tensor& sin,
                           const at::Tensor& angles, const at::Tensor& slots,
                           const at::Tensor& keys, const at::Tensor& values);

}  // namespace vlm
