// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "scheduler/step_plan.h"

namespace vlm {

/// One token of each sequence on a device that chooses the tokens itself, so that a step may follow
/// another without the host having seen what came of that. Works on buffers that its owner fills.
/// Thread-bound. Every call may throw Failure; the buffers and the runs are then anybody's guess
/// until they are filled and run() again.
class DeviceStep {
 public:
  virtual ~DeviceStep() = default;

  /// Rows that a step of so many takes: the rest must be padded, with this slot.
  virtual int64_t bucket(int64_t rows) const = 0;
  virtual int32_t spare_slot() const = 0;

  /// What the picks of the next run are to be, for the rows that the buffers hold, which a step
  /// that goes on from it keeps to: the likeliest but for ids that they must not be, one list for
  /// each row that has any, or what these choices want. False where the device cannot do that: the
  /// picks are nobody's then.
  virtual bool pick_likeliest(const std::vector<const std::vector<int64_t>*>& banned) = 0;
  virtual bool pick(const std::vector<Choice>& choices) = 0;

  /// One of the last two runs.
  using Ticket = int64_t;

  /// Runs what the buffers hold, as many rows as a bucket has. Enqueues only.
  virtual Ticket run() = 0;
  /// Enqueues another run with the rows of the last one, each going on from its pick in the slot
  /// `upcoming[row]`; -1, and rows beyond the list, are nobody's from now on.
  virtual Ticket run_on(const std::vector<int32_t>& upcoming) = 0;
  /// float32 [rows, vocab_size] of the last run, until the next one.
  virtual at::Tensor logits() const = 0;

  struct Picks {
    const int64_t* tokens;  ///< of each row
    const float* logprobs;  ///< under the raw distribution; not finite where there is none
  };
  /// Waits for a run. On the host, valid until the run after the next one.
  virtual Picks picks(Ticket ticket) = 0;
};

}  // namespace vlm
