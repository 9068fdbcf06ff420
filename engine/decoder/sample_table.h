// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/device_buffer.h"
#include "cuda/kernels.h"
#include "scheduler/step_plan.h"

namespace vlm {

/// What a device that makes the choice by itself is told of it. Nothing where it cannot: beams,
/// alternatives, more bans than there is room for. Pure.
std::optional<SampleRow> on_device(const Choice& choice, int64_t vocab_size);

/// How the rows of a step choose their tokens, in memory of fixed size on the device, where a step
/// that goes on from them brings it up to date without the host. Thread-bound.
class SampleTable {
 public:
  SampleTable(int64_t max_rows, int64_t vocab_size, at::Device device);

  /// Takes the choices; other rows, up to `rows`, take their likeliest token. False, with nothing
  /// sent, where a choice is none for the device. What was sent before must have arrived.
  bool fill(const std::vector<Choice>& choices, int64_t rows);

  /// For choosing by it; logits, results and rows are left open.
  SampleArgs sample_args() const;
  /// For going on from what was chosen by it.
  void add_to(AdvanceArgs& args) const;

 private:
  int64_t vocab_size_;
  DeviceBuffer table_;  // bytes: SampleRow [max_rows]
  DeviceBuffer seen_;   // int32 [max_rows, words]; rows without a penalty hold anything
};

}  // namespace vlm
