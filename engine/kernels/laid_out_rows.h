// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_matrix.h"

namespace vlm {

/// Some outputs of a product of few rows. All pointers lie on the CPU.
struct MatVecPart {
  PackedShape shape;
  const std::byte* weights = nullptr;  ///< of output 0
  int64_t begin = 0, end = 0;          ///< outputs
  float* y = nullptr;                  ///< of output `begin`
  int64_t y_stride = 0;                ///< from one row's outputs to the next row's
};

/// What rows of x are laid out for.
struct RowsShape {
  PackedFormat format = PackedFormat::kBFloat16;  ///< of the weights that they are to meet
  int64_t inputs = 0, rows = 0;
  bool in_bytes = false;  ///< as MatVecArgs has it
};

/// Rows of x as the kernels of few rows want them (matvec_cpu()), for callers that share out the
/// work themselves, and that multiply the same rows with several matrices. Memory is taken by
/// reset() when there is more than before, and kept; lay_out() takes none, and multiply() none for
/// up to kRowsWithoutMemory rows.
class LaidOutRows {
 public:
  static constexpr int64_t kRowsWithoutMemory = 64;

  LaidOutRows() = default;
  virtual ~LaidOutRows() = default;
  LaidOutRows(const LaidOutRows&) = delete;
  LaidOutRows& operator=(const LaidOutRows&) = delete;

  /// Makes room. `x`: [rows, inputs], what will be laid out; null where bfloat16 holds all values
  /// of all rows.
  virtual void reset(const RowsShape& shape, const float* x) = 0;
  /// x: [inputs]. Different rows may be laid out by different threads.
  virtual void lay_out(int64_t row, const float* x) = 0;
  /// Once all rows are laid out: those times some outputs' weights. Different outputs may be
  /// multiplied by different threads.
  virtual void multiply(const MatVecPart& part) const = 0;
};

}  // namespace vlm
