// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "loader/config.h"
#include "vlm/engine.h"
#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// Options with every question answered.
struct Settings {
  int64_t max_new_tokens = 128;
  int64_t min_new_tokens = 0;
  bool sample = false;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;
  int64_t no_repeat_ngram_size = 0;
  int64_t num_beams = 1;
  double length_penalty = 1;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  uint64_t seed = 0;
  uint64_t sequence = 0;
  std::vector<std::string> stop;
  int64_t repetition_guard = 0;
  int64_t top_logprobs = 0;
  std::vector<int64_t> eos_ids;
  /// Whether penalties, n-grams and stop strings see the prompt's ids, the pictures' among them, as
  /// the Hugging Face reference has it. The original one hands over embeddings without ids, so that
  /// only generated ones count.
  bool count_prompt = true;
  int64_t vocab_size = std::numeric_limits<int64_t>::max();  ///< ids that the model knows

  bool beams() const { return num_beams > 1; }
};

/// Ranges of what is set; the message names option, value and range. Reentrant.
Status check_options(const Options& options);

/// Name of a prompt format. Reentrant.
Status check_format(const std::string& format);

/// Turns, prompt text and frames of a request. Reentrant.
Status check_content(const Prompt& prompt, const std::vector<Frame>& frames);

/// `options` over the checkpoint's defaults over those of Options. Sampling is on where
/// `options.temperature` > 0, or where that is unset and the checkpoint says do_sample with a
/// temperature above 0. A seed that nobody sets is drawn. Reentrant. Errors: a value out of range,
/// also where the checkpoint set it.
Result<Settings> resolve_options(const Options& options, const GenerationDefaults& defaults);

/// Clips max_new_tokens (and min_new_tokens with it) to what the context leaves after the prompt.
/// Error kPromptTooLong where that is nothing.
Status fit_context(Settings& settings, int64_t prompt_tokens, int64_t image_tokens,
                   int64_t context_length);

}  // namespace vlm
