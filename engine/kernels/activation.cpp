// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "cuda/tensor_ops.h"
#include "kernels/gate.h"

namespace vlm {

at::Tensor activate(const at::Tensor& x, Activation activation) {
  if (x.is_cuda() && x.is_contiguous()) {
    const at::Tensor rows = x.flatten(0, -2);
    const at::Tensor out = at::empty_like(x);
    if (gpu_gate(rows, {}, activation, out)) return out;
  }
  if (const at::Tensor out = gate_cpu(x, {}, activation); out.defined()) return out;
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kQuickGelu:
      return x * at::sigmoid(x * 1.702);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

}  // namespace vlm
