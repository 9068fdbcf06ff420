// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

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
  at::Tensor ids() const { return view(ids_); }              ///< int64 [rows]
  at::Tensor positions() const { return view(positions_); }  ///< int64 [rows]
  at::Tensor lengths() const { return view(lengths_); }      ///< int64 [rows]
  at::Tensor slots() const { return view(slots_); }          ///< int64 [rows]
  CachedRows cached() const;

 private:
  struct Buffer {
    at::Tensor host, device;
  };

  Buffer make(at::IntArrayRef shape, at::ScalarType type, at::Device device) const;
  at::Tensor view(const Buffer& buffer) const { return buffer.device.narrow(0, 0, rows_); }
  void send(Buffer& buffer) const;

  int64_t rows_ = 0;
  int64_t longest_ = 0;
  Buffer ids_, positions_, lengths_, slots_, table_, cached_lengths_;
};

}  // namespace vlm
