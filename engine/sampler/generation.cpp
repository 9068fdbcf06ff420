// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/failure.h"
#include "sampler/history.h"
#include "sampler/repetition.h"

namespace vlm {

Generation::Generation(const Settings& settings, StopRules rules, std::span<const int64_t> prompt)
    : settings_(settings),
      rules_(std::move(rules)),
      prompt_(settings.count_prompt ? prompt : std::span<const int64_t>()) {
  std::copy_if(rules_.eos_ids.begin(), rules_.eos_ids.end(), std::back_inserter(known_eos_ids_),
               [&](int64_t id) { return id < settings.vocab_size; });
  if (settings.repetition_penalty != 1) {
    prompt_seen_ = distinct(prompt_);
  }
  if (settings.beams()) {
    beams_.emplace(BeamSettings{
        .num_beams = settings.num_beams,
        .eos_ids = static_cast<int64_t>(rules_.eos_ids.size()),
        .max_new_tokens = rules_.max_new_tokens,
        .length_penalty = settings.length_penalty,
        .early_stopping = settings.early_stopping,
    });
  }
}

int64_t Generation::rows() const {
  return beams_ ? static_cast<int64_t>(beams_->running().size()) : 1;
}

const BeamSearch::Beam& Generation::row(int64_t row) const {
  return beams_ ? beams_->running()[static_cast<size_t>(row)] : single_;
}

int64_t Generation::last_id(int64_t index) const {
  return row(index).ids.back();
}

Choice Generation::choice(int64_t first_row) const {
  Choice choice;
  choice.first_row = first_row;
  choice.rows = rows();
  choice.beams = beams_.has_value();
  choice.sample = settings_.sample;
  choice.repetition_penalty = settings_.repetition_penalty;
  const bool no_end = generated_ < settings_.min_new_tokens;
  for (int64_t i = 0; i < choice.rows; ++i) {
    const std::vector<int64_t>& ids = row(i).ids;
    choice.seen.push_back(settings_.repetition_penalty != 1 ? distinct_with(prompt_seen_, ids)
                                                            : std::vector<int64_t>());
    choice.banned.push_back(repeated_ngram_ids(prompt_, ids, settings_.no_repeat_ngram_size));
    if (no_end) {
      choice.banned.back() = distinct_with(choice.banned.back(), known_eos_ids_);
    }
    if (beams_) {
      choice.running_scores.push_back(row(i).score);
    }
  }
  choice.temperature = settings_.temperature;
  choice.top_k = settings_.top_k;
  choice.top_p = settings_.top_p;
  choice.min_p = settings_.min_p;
  choice.min_keep = beams_ ? static_cast<int64_t>(rules_.eos_ids.size()) + 1 : 1;
  choice.seed = settings_.seed;
  choice.sequence = settings_.sequence;
  choice.token = static_cast<uint64_t>(generated_);
  choice.alternatives = settings_.top_logprobs;
  choice.candidates = beams_ ? beams_->candidates() : 1;
  const int64_t next = generated_ + 1;
  choice.last = next >= rules_.max_new_tokens;
  choice.next_alike = !beams_ && settings_.no_repeat_ngram_size == 0 &&
                      no_end == (next < settings_.min_new_tokens) && !choice.last;
  return choice;
}

std::span<const int64_t> Generation::advance(const Chosen& chosen) {
  parents_.clear();
  if (beams_) {
    advance_beams(chosen);
  } else {
    advance_single(chosen);
  }
  ++generated_;
  if (finished()) {
    parents_.clear();
  }
  return parents_;
}

Failure Generation::no_choice(const std::string& what) const {
  const std::string size = std::to_string(settings_.no_repeat_ngram_size);
  return {ErrorKind::kInternal,
          "the model's scores are not finite, so no " + what +
              ": numbers overflow in this dtype or the weights are broken; try dtype float32" +
              (settings_.no_repeat_ngram_size > 0
                   ? " (or no-repeat-ngram-size " + size + " forbids every token; make it larger)"
                   : "")};
}

void Generation::advance_single(const Chosen& chosen) {
  if (chosen.candidates.empty()) {
    throw no_choice("token can be chosen");
  }
  const Candidate& candidate = chosen.candidates.front();
  const std::optional<FinishReason> ending = rules_.after(prompt_, single_.ids, candidate.token);
  single_.ids.push_back(candidate.token);
  single_.logprobs.push_back(candidate.logprob);
  if (!chosen.alternatives.empty()) {
    single_.alternatives.push_back(chosen.alternatives.front());
  }
  parents_.push_back(0);
  if (ending) {
    finish(*ending);
  }
}

void Generation::advance_beams(const Chosen& chosen) {
  if (chosen.candidates.empty() && !beams_->best().reason) {
    throw no_choice("beam can go on");
  }
  std::vector<std::optional<FinishReason>> endings;
  endings.reserve(chosen.candidates.size());
  for (const Candidate& candidate : chosen.candidates) {
    endings.push_back(rules_.after(prompt_, row(candidate.row).ids, candidate.token));
  }
  parents_ = beams_->advance(chosen, endings);
  if (beams_->done()) {
    finish(beams_->best().reason.value_or(FinishReason::kLength));
  }
}

void Generation::finish(FinishReason reason) {
  if (beams_) {
    single_ = beams_->best();
  }
  finish_reason_ = reason;
  if (reason == FinishReason::kRepetition) {
    cut_loop();
  }
}

void Generation::cut_loop() {
  const auto surplus =
      static_cast<size_t>(find_loop(single_.ids, rules_.repetition_guard).surplus());
  single_.ids.resize(single_.ids.size() - surplus);
  single_.logprobs.resize(single_.ids.size());
  if (!single_.alternatives.empty()) {
    single_.alternatives.resize(single_.ids.size());
  }
}

std::optional<double> Generation::sequence_score() const {
  return beams_ ? std::optional<double>(result().score) : std::nullopt;
}

}  // namespace vlm
