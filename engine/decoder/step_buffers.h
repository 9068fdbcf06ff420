// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/device_buffer.h"
#include "decoder/attention.h"
#include "scheduler/step_plan.h"

namespace vlm {

/// The inputs of a decode step in tensors of fixed capacity and address, so that a step over any
/// number of rows runs on views of the same memory (which a CUDA graph can capture). On the CPU the
/// host's tensors are the device's. Thread-bound.
class StepBuffers {
 public:
  StepBuffers(int64_t max_rows, int64_t max_length, at::Device device);

  /// Fills rows 0 … decodes.size()-1 and sends them to the device. A previous step must have
  /// finished.
  void fill(const std::vector<DecodePart>& decodes);

  int64_t rows() const { return rows_; }
  at::Tensor ids() const { return ids_.rows(rows_); }              ///< int64 [rows]
  at::Tensor positions() const { return positions_.rows(rows_); }  ///< int64 [rows]
  at::Tensor lengths() const { return lengths_.rows(rows_); }      ///< int64 [rows]
  at::Tensor slots() const { return slots_.rows(rows_); }          ///< int64 [rows]
  CachedRows cached() const;

 private:
  int64_t rows_ = 0;
  int64_t longest_ = 0;
  DeviceBuffer ids_, positions_, lengths_, slots_, table_, cached_lengths_;
};

}  // namespace vlm
