// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/device_buffer.h"
#include "scheduler/step_plan.h"

namespace vlm {

/// Which warpers some rows need at all, besides the temperature.
struct WarpUse {
  bool top_k = false;
  bool top_p = false;
  bool min_p = false;

  void add(const Choice& choice) {
    top_k |= choice.top_k > 0;
    top_p |= choice.top_p < 1;
    min_p |= choice.min_p > 0;
  }
};

/// The sampling parameters of a step's logits rows, in one tensor of fixed capacity on the device
/// that each step fills once. Thread-bound.
class WarpTable {
 public:
  /// Its columns; top_k and top_p as the warpers compare with them.
  enum Column { kTemperature, kTopK, kTopP, kMinP, kMinKeep, kUniform, kColumns };

  WarpTable(int64_t max_rows, at::Device device);

  /// Fills the rows of the choices that sample; the others keep what they had.
  void fill(const std::vector<Choice>& choices);

  /// double [max_rows, kColumns]
  const at::Tensor& values() const { return buffer_.device; }

  /// One column of some rows of values() as [rows, 1] of `type`.
  static at::Tensor column(const at::Tensor& rows, Column column, at::ScalarType type);

 private:
  DeviceBuffer buffer_;
};

}  // namespace vlm
