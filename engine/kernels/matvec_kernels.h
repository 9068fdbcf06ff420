// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/laid_out_rows.h"
#include "kernels/packed_matrix.h"

namespace vlm {

constexpr int64_t kMatVecRows = 4;   ///< rows of x that a kernel takes at most
constexpr float kMatVecTop = 16383;  ///< of a rounded x: 15 bits, so that sums of products fit 32

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
  float* y;                   ///< [rows, y_stride]: of output `first`
  int64_t y_stride, first;

  float& result(int64_t row, int64_t output) const { return y[row * y_stride + output - first]; }
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

/// Those that run everywhere. Reentrant.
const MatVecKernels& portable_matvec_kernels();

#if defined(__x86_64__)
/// Where has_avx2() holds. Reentrant.
const MatVecKernels& avx2_matvec_kernels();

/// Where has_avx512() holds: by blocks of outputs and rows of its own. Reentrant.
std::unique_ptr<LaidOutRows> make_avx512_rows();
/// The same where has_avx512_bfloat16() holds: rows of x that bfloat16 holds exactly meet kBFloat16
/// weights in half the instructions. What is below the smallest normal number counts as 0 there.
/// Reentrant.
std::unique_ptr<LaidOutRows> make_avx512_bfloat16_rows();
#endif

}  // namespace vlm
