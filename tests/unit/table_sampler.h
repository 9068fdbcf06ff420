// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/random.h"
#include "scheduler/step_plan.h"

namespace vlm::test {

using Scores = std::vector<float>;

inline Scores log_softmax(const Scores& logits) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - highest);
  }
  Scores result;
  for (const float logit : logits) {
    result.push_back(static_cast<float>(logit - highest - std::log(sum)));
  }
  return result;
}

inline void apply_processors(Scores& scores, const Choice& choice, size_t row) {
  for (const int64_t id : choice.seen[row]) {
    if (id >= static_cast<int64_t>(scores.size())) {
      continue;
    }
    float& score = scores[static_cast<size_t>(id)];
    const auto penalty = static_cast<float>(choice.repetition_penalty);
    score = score < 0 ? score * penalty : score / penalty;
  }
  for (const int64_t id : choice.banned[row]) {
    if (id < static_cast<int64_t>(scores.size())) {
      scores[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
  }
}

/// A plain sampler without libtorch: processors, temperature, best or drawn. `rows`: raw logits of
/// the choice's rows. Draws are made by adding Gumbel noise.
inline Chosen choose(const std::vector<Scores>& rows, const Choice& choice) {
  struct Option {
    Candidate candidate;
    double key;
  };
  std::vector<Option> options;
  uint32_t index = 0;
  for (size_t row = 0; row < rows.size(); ++row) {
    const Scores raw = log_softmax(rows[row]);
    Scores scores = choice.beams ? raw : rows[row];
    apply_processors(scores, choice, row);
    for (size_t token = 0; token < scores.size(); ++token, ++index) {
      float score = scores[token];
      if (choice.sample) {
        score = static_cast<float>(score / choice.temperature);
      }
      if (choice.beams) {
        score += choice.running_scores[row];
      }
      if (!std::isfinite(score) || !std::isfinite(raw[token])) {
        continue;
      }
      double key = score;
      if (choice.sample) {
        key -= std::log(-std::log(uniform_draw(choice.seed, choice.sequence,
                                               static_cast<uint32_t>(choice.token), index)));
      }
      const Candidate candidate = {static_cast<int64_t>(row), static_cast<int64_t>(token),
                                   choice.beams ? score : raw[token], raw[token]};
      options.push_back({candidate, key});
    }
  }
  std::stable_sort(options.begin(), options.end(),
                   [](const Option& a, const Option& b) { return a.key > b.key; });
  const auto wanted = static_cast<size_t>(choice.beams ? choice.candidates : 1);
  Chosen chosen;
  for (size_t i = 0; i < std::min(wanted, options.size()); ++i) {
    chosen.candidates.push_back(options[i].candidate);
  }
  return chosen;
}

}  // namespace vlm::test
