// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "loader/config.h"

namespace vlm {

/// out = activation(gate) · up, or activation(gate) where `up` is null, in one pass over `count`
/// elements of bfloat16 on the CPU, rounded where the reference rounds: after each of its
/// operations. Spreads over libtorch's threads. False, with nothing done, for activations that
/// libtorch's own operations serve. Reentrant.
bool gate_cpu(const uint16_t* gate, const uint16_t* up, uint16_t* out, int64_t count,
              Activation activation);

}  // namespace vlm
