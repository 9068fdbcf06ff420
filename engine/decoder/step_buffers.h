// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/device_buffer.h"
#include "cuda/kernels.h"
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
  /// finished. Up to `padded_rows` follow rows that compute something nobody asks for: the first
  /// token of a sequence of its own in slot `spare_slot`.
  void fill(const std::vector<DecodePart>& decodes, int64_t padded_rows = 0,
            int32_t spare_slot = 0);

  int64_t rows() const { return rows_; }                      ///< the padded ones included
  at::Tensor ids() const { return field(kIds); }              ///< int64 [rows]
  at::Tensor positions() const { return field(kPositions); }  ///< int64 [rows]
  at::Tensor lengths() const { return field(kLengths); }      ///< int64 [rows]
  at::Tensor slots() const { return field(kSlots); }          ///< int64 [rows]
  CachedRows cached() const;
  /// All of that as the host filled it. Valid until the next fill().
  struct HostRows {
    const int64_t *ids, *positions, *slots;
    const int32_t* lengths;
    const int32_t* slot_table;
    int64_t table_stride;
    int64_t longest;  ///< of the lengths
  };
  HostRows host_rows() const;
  /// For going on from these rows on the device; tokens, upcoming and spare_slot are left open.
  /// What the host holds is out of date then until the next fill().
  AdvanceArgs advance_args() const;

 private:
  enum Field { kIds, kPositions, kLengths, kSlots, kFields };

  at::Tensor field(Field which) const { return fields_.device[which].narrow(0, 0, rows_); }
  void fill_row(int64_t row, int64_t id, const int32_t* slots, int64_t length);
  void send_table() const;

  int64_t rows_ = 0;
  int64_t longest_ = 0;
  DeviceBuffer fields_;          // int64 [kFields, max_rows]
  DeviceBuffer table_;           // int32 [max_rows, max_length]
  DeviceBuffer cached_lengths_;  // int32 [max_rows]
};

}  // namespace vlm
