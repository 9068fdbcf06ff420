// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <limits>

#include "kernels/cpu.h"

namespace vlm {

/// What makes whole numbers of some of which `largest` is the largest, without its sign, and shall
/// become `top`: whole = nearest(number · inverse), number = whole · scale. Where nothing is larger
/// than 1e-34 all become 0; where one is infinite or no number, neither is the scale, and `inverse`
/// is of no use.
struct RowScale {
  VLM_INLINE RowScale(float largest, float top)
      : finite(largest <= std::numeric_limits<float>::max()),
        scale(!finite               ? std::numeric_limits<float>::quiet_NaN()
              : largest < kSmallest ? 0
                                    : largest / top),
        inverse(finite && largest >= kSmallest ? top / largest : 0) {}

  static constexpr float kSmallest = 1e-34F;
  bool finite;
  float scale, inverse;
};

}  // namespace vlm
