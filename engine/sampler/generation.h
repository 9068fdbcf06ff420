// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/failure.h"
#include "sampler/beam_search.h"
#include "sampler/stop.h"
#include "scheduler/settings.h"
#include "scheduler/step_plan.h"
#include "vlm/types.h"

namespace vlm {

/// One request's text as it grows: what to ask of the sampler, what came of it, when it ends.
/// Greedy and sampled texts have one row, beam search has a row for each running beam. Pure;
/// thread-bound.
class Generation {
 public:
  /// `prompt` must outlive it: what counts the prompt (Settings::count_prompt) reads it.
  Generation(const Settings& settings, StopRules rules, std::span<const int64_t> prompt);

  /// Rows of the next step: 1 at the prompt.
  int64_t rows() const;
  /// Last id of each row; only after the prompt's step.
  int64_t last_id(int64_t row) const;
  /// What to ask for in the next step, whose rows start at `first_row`.
  Choice choice(int64_t first_row) const;

  /// Takes the answer. Gives the row that each next row goes on from; empty once finished().
  /// Failure where the model gave nothing to choose from.
  std::span<const int64_t> advance(const Chosen& chosen);

  bool finished() const { return finish_reason_.has_value(); }
  FinishReason finish_reason() const { return *finish_reason_; }
  /// Ends it as it is.
  void cancel() { finish(FinishReason::kCancelled); }

  /// The text so far; of several beams the best.
  const std::vector<int64_t>& ids() const { return result().ids; }
  const std::vector<float>& logprobs() const { return result().logprobs; }
  /// What else each id could have been; empty where the settings do not ask.
  const std::vector<std::shared_ptr<const Alternatives>>& alternatives() const {
    return result().alternatives;
  }
  /// Beam search only: the score of ids() with length penalty.
  std::optional<double> sequence_score() const;

 private:
  const BeamSearch::Beam& result() const {
    return beams_ && !finished() ? beams_->best() : single_;
  }
  void finish(FinishReason reason);
  void cut_loop();
  const BeamSearch::Beam& row(int64_t row) const;
  Failure no_choice(const std::string& what) const;
  void advance_single(const Chosen& chosen);
  void advance_beams(const Chosen& chosen);

  Settings settings_;
  StopRules rules_;
  std::vector<int64_t> known_eos_ids_;  ///< those that the model can choose
  std::span<const int64_t> prompt_;
  std::vector<int64_t> prompt_seen_;  ///< distinct ids of the prompt, where a penalty counts them
  int64_t generated_ = 0;             ///< steps taken
  BeamSearch::Beam single_;           ///< of beams the best, once finished
  std::optional<BeamSearch> beams_;
  std::vector<int64_t> parents_;
  std::optional<FinishReason> finish_reason_;
};

}  // namespace vlm
