// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "loader/config.h"

namespace vlm {

/// activation(gate) · up, or activation(gate) where `up` is undefined, in one pass over bfloat16 on
/// the CPU, rounded where the reference rounds: after each of its operations. Spreads over
/// libtorch's threads. Undefined for what libtorch's own operations serve: other types, devices,
/// layouts and activations. Reentrant.
at::Tensor gate_cpu(const at::Tensor& gate, const at::Tensor& up, Activation activation);

}  // namespace vlm
