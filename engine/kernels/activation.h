// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "loader/config.h"

namespace vlm {

/// Element-wise, any shape of one dimension or more, in the type of `x`. gelu is exact (erf);
/// quick_gelu is x·σ(1.702x). Reentrant.
at::Tensor activate(const at::Tensor& x, Activation activation);

}  // namespace vlm
