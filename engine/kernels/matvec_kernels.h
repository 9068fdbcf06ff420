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

constexpr int64_t kInt4Groups = 8;  ///< of kInt4 that kernels scale at a time
constexpr int64_t kInt4Inputs = kInt4Groups * PackedShape::kGroup;

/// kInt4: kInt4Groups groups of a row of x in the order in which kernels of 256 bits meet the
/// weights: two groups at a time, of every kStride inputs the first ones of both, then the second
/// ones … Of the groups' sums and scales those of 0, 2, 4, 6 stand before those of 1, 3, 5, 7. For
/// whole numbers of 16 bits: x = value · the row's scale.
struct alignas(64) Int4Words {
  static constexpr int64_t kStride = 4;

  int16_t values[kInt4Inputs];
  /// −8 · the sum of each group's values, which takes the weights' offset back.
  int32_t shifts[kInt4Groups];
};

/// The same for whole numbers of 8 bits: x = value · scale.
struct alignas(64) Int4Bytes {
  static constexpr int64_t kStride = 2;

  int8_t values[kInt4Inputs];
  int32_t shifts[kInt4Groups];
  float scales[kInt4Groups];
};

/// Where a group's first value stands in either. Inputs kStride, 2 · kStride … of the group follow
/// it; input 1 stands 2 · kGroup / kStride behind it, and so on.
template <typename Groups>
constexpr int64_t first_value(int64_t group) {
  const int64_t together = 2 * PackedShape::kGroup;
  return group / 2 * together + group % 2 * PackedShape::kGroup / Groups::kStride;
}
constexpr int64_t group_place(int64_t group) {
  return group / 2 + group % 2 * kInt4Groups / 2;
}

/// One row of x as the kernels read it.
struct MatVecInput {
  /// kBFloat16: of each 16 inputs the even ones, then the odd ones; zeros behind the last.
  std::vector<float> wide;
  std::vector<int16_t> values;  ///< kInt8: in order; x = value · scale
  std::vector<Int4Words> words;
  std::vector<Int4Bytes> bytes;
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
  /// The weights of an output.
  template <typename T = std::byte>
  const T* row(int64_t output) const {
    return reinterpret_cast<const T*>(weights + output * shape.row_bytes());
  }
};
using MatVecKernel = void (*)(const MatVecTask& task, int64_t begin, int64_t end);

/// One processor's kernels for 1 to kMatVecRows rows.
struct MatVecKernels {
  using ByRows = std::array<MatVecKernel, kMatVecRows>;
  ByRows bfloat16, int8, int4;
  // With x in 8 bits, and how it is laid out; null where that is no faster than 16.
  ByRows int4_bytes{};
  void (*lay_out_bytes)(const PackedShape& shape, const float* x, MatVecInput& input) = nullptr;

  bool takes_bytes(PackedFormat format) const {
    return format == PackedFormat::kInt4 && lay_out_bytes != nullptr;
  }
  const ByRows& of(PackedFormat format, bool in_bytes) const {
    return format == PackedFormat::kBFloat16 ? bfloat16
           : format == PackedFormat::kInt8   ? int8
           : in_bytes                        ? int4_bytes
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
