// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/beam_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace vlm {
namespace {

constexpr float kNever = -1.0e9f;  ///< added to what must not win, also the score of an open slot

float penalised(float score, int64_t length, double penalty) {
  return score / static_cast<float>(std::pow(static_cast<double>(length), penalty));
}

bool all_finished(const std::vector<BeamSearch::Beam>& slots) {
  return std::all_of(slots.begin(), slots.end(),
                     [](const BeamSearch::Beam& slot) { return slot.reason.has_value(); });
}

}  // namespace

BeamSearch::BeamSearch(const BeamSettings& settings)
    : settings_(settings), running_(1), finished_(static_cast<size_t>(settings.num_beams)) {
  for (Beam& slot : finished_) {
    slot.score = kNever;
  }
}

int64_t BeamSearch::candidates() const {
  return std::max<int64_t>(2, 1 + settings_.eos_ids) * settings_.num_beams;
}

BeamSearch::Beam BeamSearch::extended(const Chosen& chosen, size_t index) const {
  const Candidate& candidate = chosen.candidates[index];
  const Beam& parent = running_[static_cast<size_t>(candidate.row)];
  Beam beam;
  beam.ids.reserve(parent.ids.size() + 1);
  beam.ids = parent.ids;
  beam.ids.push_back(candidate.token);
  beam.logprobs.reserve(parent.logprobs.size() + 1);
  beam.logprobs = parent.logprobs;
  beam.logprobs.push_back(candidate.logprob);
  if (!chosen.alternatives.empty()) {
    beam.alternatives = parent.alternatives;
    beam.alternatives.push_back(chosen.alternatives[static_cast<size_t>(candidate.row)]);
  }
  beam.score = candidate.score;
  return beam;
}

const std::vector<int64_t>& BeamSearch::advance(
    const Chosen& chosen, std::span<const std::optional<FinishReason>> endings) {
  choose_running(chosen, endings);
  collect_finished(chosen, endings);
  ++length_;
  const bool open = settings_.early_stopping != EarlyStopping::kTrue || !all_finished(finished_);
  const bool alive = std::any_of(endings.begin(), endings.end(),
                                 [](const auto& ending) { return !ending.has_value(); });
  if (!next_.empty()) {
    std::swap(running_, next_);
  }
  done_ = !(alive && open && can_improve());
  return parents_;
}

void BeamSearch::choose_running(const Chosen& chosen,
                                std::span<const std::optional<FinishReason>> endings) {
  const std::vector<Candidate>& candidates = chosen.candidates;
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto score = [&](size_t i) { return candidates[i].score + (endings[i] ? kNever : 0.0f); };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return score(a) > score(b); });
  order.resize(std::min(order.size(), static_cast<size_t>(settings_.num_beams)));

  next_.clear();
  parents_.clear();
  for (const size_t i : order) {
    next_.push_back(extended(chosen, i));
    next_.back().score = score(i);
    parents_.push_back(candidates[i].row);
  }
}

void BeamSearch::collect_finished(const Chosen& chosen,
                                  std::span<const std::optional<FinishReason>> endings) {
  const std::vector<Candidate>& candidates = chosen.candidates;
  const size_t counted = std::min(candidates.size(), static_cast<size_t>(settings_.num_beams));
  bool changed = false;
  for (size_t i = 0; i < counted; ++i) {
    if (!endings[i]) {
      continue;
    }
    finished_.push_back(extended(chosen, i));
    finished_.back().score = penalised(candidates[i].score, length_ + 1, settings_.length_penalty);
    finished_.back().reason = endings[i];
    changed = true;
  }
  if (changed) {
    std::stable_sort(finished_.begin(), finished_.end(),
                     [](const Beam& a, const Beam& b) { return a.score > b.score; });
    finished_.resize(static_cast<size_t>(settings_.num_beams));
  }
}

bool BeamSearch::can_improve() const {
  if (running_.empty()) {
    return false;
  }
  const bool longest_counts =
      settings_.early_stopping == EarlyStopping::kNever && settings_.length_penalty > 0;
  const float best =
      penalised(running_[0].score, longest_counts ? settings_.max_new_tokens : length_,
                settings_.length_penalty);
  const float worst = finished_.back().score;
  return std::any_of(finished_.begin(), finished_.end(),
                     [&](const Beam& slot) { return best > (slot.reason ? worst : kNever); });
}

const BeamSearch::Beam& BeamSearch::best() const {
  for (const Beam& slot : finished_) {
    if (slot.reason) {
      return slot;
    }
  }
  return running_[0];
}

}  // namespace vlm
