// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "cuda/kernels.h"
#include "cuda/types.cuh"

namespace vlm {

/// function(gate) · up, rounded to T where libtorch's operations would round.
template <typename T>
__device__ inline float gated(GateFunction function, float gate, float up) {
  float value = gate;
  switch (function) {
    case GateFunction::kGelu:
      value = 0.5f * gate * (1 + erff(gate * 0.70710678118654752f));
      break;
    case GateFunction::kGeluTanh: {
      const float inner = 0.79788456080286536f * (gate + 0.044715f * gate * gate * gate);
      value = 0.5f * gate * (1 + tanhf(inner));
      break;
    }
    case GateFunction::kQuickGelu: {
      const float scaled = rounded<T>(gate * 1.702f);
      value = gate * rounded<T>(1 / (1 + expf(-scaled)));
      break;
    }
    case GateFunction::kSilu:
      value = gate / (1 + expf(-gate));
      break;
    case GateFunction::kRelu:
      value = gate > 0 || isnan(gate) ? gate : 0;
      break;
  }
  return rounded<T>(value) * up;
}

}  // namespace vlm
