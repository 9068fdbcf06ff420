// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/packed_matrix.h"

namespace vlm {

constexpr int64_t kMatVecRows = 4;  ///< rows of x that a kernel takes at most

/// One row of x as the kernels read it.
struct MatVecInput {
  /// kBFloat16: of each 16 inputs the even ones, then the odd ones; zeros behind the last.
  std::vector<float> wide;
  /// kInt8: in order; kInt4: of each group the even ones, then the odd ones. x = value · scale.
  std::vector<int16_t> values;
  /// kInt4: −8 · the sum of each group's values, which takes the weights' offset back.
  std::vector<float> group_shifts;
  float scale = 0;
};

/// What a kernel works on: outputs [begin, end) of as many rows as it is made for.
struct MatVecTask {
  const PackedShape& shape;
  const std::byte* weights;   ///< of output 0
  const MatVecInput* inputs;  ///< one for each row
  float* y;                   ///< [rows, outputs]
};
using MatVecKernel = void (*)(const MatVecTask& task, int64_t begin, int64_t end);

/// One processor's kernels for 1 to kMatVecRows rows.
struct MatVecKernels {
  using ByRows = std::array<MatVecKernel, kMatVecRows>;
  ByRows bfloat16, int8, int4;

  const ByRows& of(PackedFormat format) const {
    return format == PackedFormat::kBFloat16 ? bfloat16
           : format == PackedFormat::kInt8   ? int8
                                             : int4;
  }
};

/// The best ones that run here. Reentrant.
const MatVecKernels& matvec_kernels();
/// Those that run everywhere. Reentrant.
const MatVecKernels& portable_matvec_kernels();

}  // namespace vlm
