// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "preprocess/image.h"

namespace vlm {

/// Features of one request's pictures after the projector, held by the executor on its device.
/// Opaque here.
struct ImageEmbeds {
  virtual ~ImageEmbeds() = default;
  int64_t tokens = 0;  ///< of all pictures together
};

/// One cache slot holds keys and values of one token in every layer. A sequence is a list of slots,
/// oldest first; beams that share a past share its slots, so choosing beams permutes lists and
/// never copies cache.
using SlotTable = std::vector<int32_t>;

/// Consecutive tokens of a prompt; those before them, if any, are in the cache. A token's position
/// is its place in `ids`.
struct PromptPart {
  const std::vector<int64_t>* ids = nullptr;            ///< image id at every image position
  const std::vector<int64_t>* image_offsets = nullptr;  ///< first position of each picture
  std::shared_ptr<const ImageEmbeds> images;            ///< null where the prompt has none
  const SlotTable* slots = nullptr;                     ///< one for each token
  std::string trace_path;  ///< where set, tensors are kept for the trace; only for whole prompts
  int64_t first = 0;
  int64_t count = 0;

  int64_t end() const { return first + count; }
  /// Whether the prompt is processed then, so that a token can be chosen.
  bool last() const { return end() == static_cast<int64_t>(ids->size()); }
};

/// One sequence that goes on by one token: `id` at position slots->size()-1, whose slot is the
/// last.
struct DecodePart {
  int64_t id = 0;
  const SlotTable* slots = nullptr;
  /// The slot that the token chosen now will have if the sequence goes on from it; -1: not known.
  /// Nobody else has it until the next step's plan, so that an executor may run ahead.
  int32_t upcoming = -1;
};

/// How the scores of some logits rows become tokens. Rows of a plan: first one for each PromptPart
/// that is its prompt's last, then one for each DecodePart. A choice names consecutive ones: 1 for
/// greedy and sampling, num_beams for beam search (1 at its prompt). Processors act in the
/// reference's order (llava-reference.md §8.1).
struct Choice {
  int64_t first_row = 0;
  int64_t rows = 1;
  bool beams = false;   ///< candidates over all rows instead of one token
  bool sample = false;  ///< warpers and a draw instead of the best

  // Processors; lists hold one entry for each row.
  double repetition_penalty = 1;
  std::vector<std::vector<int64_t>> seen;  ///< distinct ids that the penalty counts
  std::vector<std::vector<int64_t>>
      banned;  ///< ids set to -inf: repeated n-grams, EOS before min_new_tokens

  // Warpers.
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  int64_t min_keep = 1;  ///< what top_k, top_p and min_p leave at least

  // Randomness: a pure function of these three (kernels/random.h).
  uint64_t seed = 0;
  uint64_t sequence = 0;
  uint64_t token = 0;

  /// The likeliest ids of each row to tell besides; 0: none.
  int64_t alternatives = 0;

  /// Whether the row's next choice, should there be one, will be this one again but for `token`,
  /// which is the next one then, and `seen`, which has what is chosen now besides.
  bool next_alike = false;
  /// Whether there is none, whatever is chosen now.
  bool last = false;

  // Beam search.
  std::vector<float> running_scores;  ///< one for each row
  int64_t candidates = 0;             ///< how many to return
};

/// One step of the model as data: prompts to process, sequences that go on, choices to make.
struct StepPlan {
  std::vector<PromptPart> prompts;
  std::vector<DecodePart> decodes;
  std::vector<Choice> choices;

  /// Rows that the choices so far name.
  int64_t rows() const {
    return choices.empty() ? 0 : choices.back().first_row + choices.back().rows;
  }
};

/// One possible continuation.
struct Candidate {
  int64_t row = 0;  ///< within its choice
  int64_t token = 0;
  float score = 0;    ///< beams: running score + processed log-probability; else equal to logprob
  float logprob = 0;  ///< under the raw distribution
};

/// One id of a row with its log-probability under the raw distribution.
struct Alternative {
  int64_t token = 0;
  float logprob = 0;
};
using Alternatives = std::vector<Alternative>;

/// The outcome of one choice: one candidate, or Choice::candidates of them, best first (drawn: in
/// draw order). Fewer, down to none, where fewer continuations have a finite score (NaN logits,
/// everything banned).
struct Chosen {
  std::vector<Candidate> candidates;
  /// Of each row, best first, shared by the texts that go on from it; empty unless asked for.
  std::vector<std::shared_ptr<const Alternatives>> alternatives;
};

/// The outcomes in the order of StepPlan::choices.
struct StepResult {
  std::vector<Chosen> chosen;
};

}  // namespace vlm
