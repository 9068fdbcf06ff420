// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "decoder/device_step.h"
#include "decoder/step_buffers.h"
#include "sampler/sampler.h"
#include "scheduler/step_plan.h"

namespace vlm {

/// Sequences that go on, on a GPU. Where the device chooses every row's token by itself, the step
/// after the one that was asked for is started before the host has seen this one's tokens: if the
/// next plan goes on from these rows, be it with fewer of them, its results are under way already,
/// and the GPU never waits for the host. If it does not, they are dropped: they wrote nothing but
/// slots that their sequences had to themselves. Thread-bound.
class RunAhead {
 public:
  /// All must outlive it.
  RunAhead(DeviceStep& step, StepBuffers& buffers, Sampler& sampler);

  /// Enqueues a step of `decodes`, which is what answer() then tells of; the rows of `choices`, one
  /// choice for each sequence, count from the first of them. `alone`: nothing else joins the next
  /// step. Where it throws, whatever was under way is forgotten.
  void start(const std::vector<DecodePart>& decodes, const std::vector<Choice>& choices,
             bool alone);
  /// Tells that the next step is none of these sequences.
  void drop() { ahead_.reset(); }
  /// Waits for that step. Results in the order of its choices.
  std::vector<Chosen> answer(const std::vector<Choice>& choices);

 private:
  /// A run whose rows go on from the run before.
  struct Ahead {
    DeviceStep::Ticket ticket = 0;
    std::vector<int32_t> slots;  ///< of each row, as slots_ahead() gives them
  };

  bool take(const std::optional<Ahead>& ahead, const std::vector<DecodePart>& decodes);
  void start_afresh(const std::vector<DecodePart>& decodes, const std::vector<Choice>& choices);
  void look_ahead(const std::vector<DecodePart>& decodes, const std::vector<Choice>& choices);

  DeviceStep& step_;
  StepBuffers& buffers_;
  Sampler& sampler_;
  DeviceStep::Ticket ticket_ = 0;  // of the step that was asked for
  std::vector<int64_t> rows_;      // where in it each of its decodes is
  bool picked_ = false;            // its picks are the answer
  std::optional<Ahead> ahead_;
};

}  // namespace vlm
