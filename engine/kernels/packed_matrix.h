// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/host_device.h"

namespace vlm {

/// How a weight matrix [outputs, inputs] lies in memory, one output's row after the other:
///   kBFloat16  the inputs as they are
///   kInt8      int8 values, then one float32 scale for the row: weight = value · scale
///   kInt4      groups of 32 inputs, 4 bits each (0 … 15, two to a byte, the even one low), with a
///              bfloat16 scale for each group: weight = (value − 8) · scale. The scales of up to 32
///              groups stand in front of their values, so that a row is read in order.
/// Rows of the last two are padded with zeros, so that kernels need no tails.
enum class PackedFormat { kBFloat16, kInt8, kInt4 };

constexpr int kMostOfByte = 127;  ///< what the largest becomes of what is rounded to 8 bits

/// Sizes of a packed matrix.
struct PackedShape {
  PackedFormat format = PackedFormat::kBFloat16;
  int64_t outputs = 0;
  int64_t inputs = 0;

  static constexpr int64_t kGroup = 32;         ///< inputs that share a scale in kInt4
  static constexpr int64_t kRun = 32 * kGroup;  ///< inputs whose scales stand together there
  static constexpr int64_t kRunBytes = kRun / 2 + kRun / kGroup * 2;

  /// Inputs with the padding.
  VLM_HOST_DEVICE int64_t padded_inputs() const {
    const int64_t unit = format == PackedFormat::kInt4 ? 8 * kGroup : kGroup;
    // Units are powers of two; a division by either is slow where rows are walked group by group.
    return format == PackedFormat::kBFloat16 ? inputs : (inputs + unit - 1) & -unit;
  }
  /// Bytes from one row to the next.
  VLM_HOST_DEVICE int64_t row_bytes() const {
    const int64_t padded = padded_inputs();
    switch (format) {
      case PackedFormat::kBFloat16:
        return inputs * 2;
      case PackedFormat::kInt8:
        return padded + kGroup;  // the scale, and what keeps rows aligned
      case PackedFormat::kInt4:
        return padded / 2 + padded / kGroup * 2;
    }
    return 0;
  }
  int64_t bytes() const { return outputs * row_bytes(); }

  /// kInt4: where in a row the scale of an input's group lies, and the byte of its value.
  VLM_HOST_DEVICE int64_t scale_at(int64_t input) const {
    return input / kRun * kRunBytes + input % kRun / kGroup * 2;
  }
  VLM_HOST_DEVICE int64_t value_at(int64_t input) const {
    const int64_t left = padded_inputs() - input / kRun * kRun;
    const int64_t groups = (left < kRun ? left : kRun) / kGroup;
    return input / kRun * kRunBytes + groups * 2 + input % kRun / 2;
  }
};

/// Rounds `count` rows of float32 weights into the packed rows at `packed`. Scales are chosen so
/// that the largest weight of a row (kInt8) or group (kInt4) is met exactly. Reentrant.
void pack_rows(const PackedShape& shape, const float* weights, int64_t count, std::byte* packed);

/// The weights that `count` packed rows stand for. Reentrant.
void unpack_rows(const PackedShape& shape, const std::byte* packed, int64_t count, float* weights);

/// y = x · Wᵀ for few rows of x. All pointers lie on the CPU.
struct MatVecArgs {
  PackedShape shape;
  const std::byte* weights = nullptr;  ///< [outputs] rows of shape.row_bytes()
  const float* x = nullptr;            ///< [rows, inputs]
  float* y = nullptr;                  ///< [rows, outputs]
  int64_t rows = 0;
  /// kInt4: x is rounded to 8 bits, each group with a scale, where a family is faster by it.
  bool in_bytes = false;
};

/// Reads each weight once from memory for a few rows of x, so that they cost one pass over it;
/// spreads the outputs over libtorch's threads. A row's result does not depend on the other rows.
/// Sums are float32; for kInt8 and kInt4 x is rounded to 15 bits of its largest value first (an
/// error of 3e-5 of that), or to 8 bits of the largest of each group of kInt4. Reentrant.
void matvec_cpu(const MatVecArgs& args);

class LaidOutRows;

/// matvec_cpu() with the instructions of one kind of processor.
struct MatVecFamily {
  const char* name;
  void (*product)(const MatVecArgs&);
  std::unique_ptr<LaidOutRows> (*make_rows)();  ///< for work in parts (laid_out_rows.h)
  bool takes_bytes;                             ///< whether `in_bytes` is heeded
};
/// Those that run here, the best one, which is matvec_cpu(), first. Reentrant.
const std::vector<MatVecFamily>& matvec_families();

/// The same as plain loops in double precision over unpacked weights: what every variant is tested
/// against. Reentrant.
void matvec_reference(const MatVecArgs& args);

}  // namespace vlm
