// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "scheduler/step_plan.h"
#include "vlm/types.h"

namespace vlm {

struct BeamSettings {
  int64_t num_beams = 2;
  int64_t eos_ids = 1;  ///< how many end ids there are
  int64_t max_new_tokens = 1;
  double length_penalty = 1;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
};

/// Beam search over one prompt, step by step, with the reference's arithmetic
/// (llava-reference.md §8.2): scores in float32, powers in double, -1e9 for what must not win.
/// Equal scores go to the earlier candidate. Pure; thread-bound.
class BeamSearch {
 public:
  /// A text so far.
  struct Beam {
    std::vector<int64_t> ids;     ///< generated only
    std::vector<float> logprobs;  ///< of each id, raw
    /// Of each id, what else there was; empty where nobody asks.
    std::vector<std::shared_ptr<const Alternatives>> alternatives;
    float score = 0;                     ///< running: accumulated; finished: length penalty applied
    std::optional<FinishReason> reason;  ///< finished ones
  };

  explicit BeamSearch(const BeamSettings& settings);

  /// Continuations to ask for in each step.
  int64_t candidates() const;
  /// One row each of the next step: a single one before the first advance().
  const std::vector<Beam>& running() const { return running_; }

  /// Takes the step's candidates, in the order they came, with why each one ends its text (nothing:
  /// it goes on). Gives the row that each beam of the new running() goes on from.
  const std::vector<int64_t>& advance(const Chosen& chosen,
                                      std::span<const std::optional<FinishReason>> endings);

  bool done() const { return done_; }
  /// The best finished text, or the best running one where none is finished.
  const Beam& best() const;

 private:
  void choose_running(const Chosen& chosen, std::span<const std::optional<FinishReason>> endings);
  void collect_finished(const Chosen& chosen, std::span<const std::optional<FinishReason>> endings);
  bool can_improve() const;
  Beam extended(const Chosen& chosen, size_t candidate) const;

  BeamSettings settings_;
  int64_t length_ = 0;  ///< tokens generated
  std::vector<Beam> running_;
  std::vector<Beam> next_;
  std::vector<Beam> finished_;  ///< num_beams slots, best first; open ones have no reason
  std::vector<int64_t> parents_;
  bool done_ = false;
};

}  // namespace vlm
