// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "loader/config.h"

namespace vlm {

// The element-wise steps of fused.h and gate.h for one row in bfloat16 on the calling thread, to
// the same bits: for callers that share out the work themselves. `out` may be any argument of its
// size.
// Reentrant.

/// rms_norm() of x: [size]; where `delta` is not null it is added to x first.
void add_norm_row(uint16_t* x, const uint16_t* delta, const uint16_t* weight, int64_t size,
                  double eps, uint16_t* out);

/// rotate() of x: [heads, head_dim]; cos, sin: [head_dim].
void rotate_row(const uint16_t* x, const uint16_t* cos, const uint16_t* sin, int64_t heads,
                int64_t head_dim, uint16_t* out);

/// gated() of `count` elements.
void gate_row(const uint16_t* gate, const uint16_t* up, int64_t count, Activation activation,
              uint16_t* out);
/// Whether gate_row() knows the activation.
bool gates_rows(Activation activation);

}  // namespace vlm
