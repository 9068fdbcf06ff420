// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/kernel_type.h"

namespace vlm {

/// Writes the `count` values of `from_type` at `from` to `to` as values of `to_type`, contiguous
/// both, each rounded to the nearest one, ties to even; what is too large becomes infinite, what is
/// no number stays none. The two may not overlap, and need no alignment. On the caller's thread;
/// reentrant.
void convert_values(KernelType from_type, const void* from, KernelType to_type, void* to,
                    int64_t count);

}  // namespace vlm
