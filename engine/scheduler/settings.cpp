// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/settings.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <sstream>

#include "text/description.h"
#include "text/prompt.h"

namespace vlm {
namespace {

Error out_of_range(const char* option, double value, const char* range) {
  std::ostringstream message;
  message << option << " is " << value << ", but it must be " << range;
  return {ErrorKind::kInvalidArgument, message.str(), {}};
}

/// One numeric option and what it may be. NaN fails every range.
struct Range {
  const char* option;
  std::optional<double> value;
  double lowest;
  bool lowest_allowed;
  double highest;
  const char* text;
};

template <typename T>
std::optional<double> number(const std::optional<T>& value) {
  return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Status check_ranges(const std::vector<Range>& ranges) {
  for (const Range& range : ranges) {
    if (!range.value) {
      continue;
    }
    const double value = *range.value;
    const bool low = range.lowest_allowed ? value >= range.lowest : value > range.lowest;
    if (!low || !(value <= range.highest) || !std::isfinite(value)) {
      return out_of_range(range.option, value, range.text);
    }
  }
  return ok_status();
}

Status check_lengths(const Options& options) {
  return check_ranges({
      {"max-new-tokens", number(options.max_new_tokens), 1, true, kInfinity, "at least 1"},
      {"min-new-tokens", number(options.min_new_tokens), 0, true, kInfinity, "at least 0"},
      {"repetition-penalty", options.repetition_penalty, 0, false, kInfinity, "above 0 (1 is off)"},
      {"no-repeat-ngram-size", number(options.no_repeat_ngram_size), 0, true, kInfinity,
       "at least 0 (0 is off)"},
      {"num-beams", number(options.num_beams), 1, true, kInfinity, "at least 1"},
      {"length-penalty", options.length_penalty, -kInfinity, false, kInfinity, "a finite number"},
      {"top-logprobs", number(options.top_logprobs), 0, true, kInfinity, "at least 0 (0 is off)"},
      {"repetition-guard", number(options.repetition_guard), 0, true, kInfinity,
       "0 (off) or at least 2"},
  });
}

Status check_warpers(const Options& options) {
  return check_ranges({
      {"temperature", options.temperature, 0, true, kInfinity, "at least 0 (0 is greedy)"},
      {"top-k", number(options.top_k), 0, true, kInfinity, "at least 0 (0 is off)"},
      {"top-p", options.top_p, 0, false, 1, "above 0 and at most 1 (1 is off)"},
      {"min-p", options.min_p, 0, true, 1, "between 0 and 1 (0 is off)"},
  });
}

/// The same refusal, said of the checkpoint.
Error in_checkpoint(const Error& error) {
  return {ErrorKind::kInvalidModel,
          "generation_config.json of the checkpoint: " + error.message +
              "; correct the file, or set the option yourself",
          {}};
}

template <typename T>
void set_if(std::optional<T>& value, const std::optional<T>& override_by) {
  if (override_by) {
    value = override_by;
  }
}

Options merge(const Options& options, const Options& defaults) {
  Options merged = defaults;
  set_if(merged.max_new_tokens, options.max_new_tokens);
  set_if(merged.min_new_tokens, options.min_new_tokens);
  set_if(merged.temperature, options.temperature);
  set_if(merged.top_k, options.top_k);
  set_if(merged.top_p, options.top_p);
  set_if(merged.min_p, options.min_p);
  set_if(merged.repetition_penalty, options.repetition_penalty);
  set_if(merged.no_repeat_ngram_size, options.no_repeat_ngram_size);
  set_if(merged.num_beams, options.num_beams);
  set_if(merged.length_penalty, options.length_penalty);
  set_if(merged.early_stopping, options.early_stopping);
  set_if(merged.seed, options.seed);
  set_if(merged.repetition_guard, options.repetition_guard);
  set_if(merged.top_logprobs, options.top_logprobs);
  if (!options.stop.empty()) {
    merged.stop = options.stop;
  }
  return merged;
}

uint64_t random_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

Status check_on_gpu(const Frame& frame, const std::string& name) {
  const GpuPicture& picture = *frame.on_gpu;
  const PictureLayout& layout = picture.layout;
  if (picture.upright_width() != frame.width || picture.upright_height() != frame.height) {
    return Error{ErrorKind::kInvalidArgument,
                 name + " but on its GPU, upright, " + std::to_string(picture.upright_width()) +
                     "×" + std::to_string(picture.upright_height()),
                 {}};
  }
  const bool two = layout.format == PictureLayout::Format::kNv12;
  if (layout.planes[0] == nullptr || (two && layout.planes[1] == nullptr)) {
    return Error{ErrorKind::kInvalidArgument, name + " on a GPU, but a plane of it is missing", {}};
  }
  return ok_status();
}

}  // namespace

Status check_options(const Options& options) {
  for (const auto& check : {check_lengths(options), check_warpers(options)}) {
    if (!check) {
      return check.error();
    }
  }
  if (options.min_new_tokens && options.max_new_tokens &&
      *options.min_new_tokens > *options.max_new_tokens) {
    return Error{ErrorKind::kInvalidArgument,
                 "min-new-tokens is " + std::to_string(*options.min_new_tokens) +
                     ", but it must be at most max-new-tokens, which is " +
                     std::to_string(*options.max_new_tokens),
                 {}};
  }
  if (options.repetition_guard == 1) {
    return out_of_range("repetition-guard", 1, "0 (off) or at least 2");
  }
  if (std::find(options.stop.begin(), options.stop.end(), "") != options.stop.end()) {
    return Error{ErrorKind::kInvalidArgument,
                 "stop holds an empty string, but each stop string needs at least one character",
                 {}};
  }
  return ok_status();
}

Status check_format(const std::string& format) {
  const std::vector<std::string>& formats = prompt_format_names();
  if (std::find(formats.begin(), formats.end(), format) != formats.end()) {
    return ok_status();
  }
  std::string names;
  for (const std::string& name : formats) {
    names += (names.empty() ? "" : ", ") + name;
  }
  return Error{ErrorKind::kInvalidArgument,
               "prompt-format is \"" + format + "\", but it must be one of " + names,
               {}};
}

Status check_content(const Prompt& prompt, const std::vector<Frame>& frames) {
  if (prompt.turns.empty() || prompt.turns.back().role != Turn::Role::kUser) {
    return Error{ErrorKind::kInvalidArgument,
                 "the prompt does not end with a user turn; add one with the instruction",
                 {}};
  }
  if (trimmed(prompt.turns.back().text).empty()) {
    return Error{ErrorKind::kInvalidArgument,
                 "the prompt is empty; write what you want to know about the picture",
                 {}};
  }
  for (size_t i = 0; i < frames.size(); ++i) {
    const Frame& frame = frames[i];
    const std::string name = "frame " + std::to_string(i) + " is " + std::to_string(frame.width) +
                             "×" + std::to_string(frame.height) + " pixels";
    if (frame.width <= 0 || frame.height <= 0) {
      return Error{
          ErrorKind::kInvalidArgument, name + ", but width and height must be above 0", {}};
    }
    if (frame.on_gpu != nullptr) {
      if (const Status status = check_on_gpu(frame, name); !status) {
        return status.error();
      }
      continue;
    }
    const size_t expected =
        size_t{3} * static_cast<size_t>(frame.width) * static_cast<size_t>(frame.height);
    if (frame.rgb.size() != expected) {
      return Error{ErrorKind::kInvalidArgument,
                   name + " but holds " + std::to_string(frame.rgb.size()) +
                       " bytes; RGB rows without padding take " + std::to_string(expected),
                   {}};
    }
  }
  return ok_status();
}

Result<Settings> resolve_options(const Options& options, const GenerationDefaults& defaults) {
  if (const Status status = check_options(options); !status) {
    return status.error();
  }
  const Options merged = merge(options, defaults.options);
  if (const Status status = check_lengths(merged); !status) {
    return in_checkpoint(status.error());
  }
  Settings settings;
  settings.sample = options.temperature
                        ? *options.temperature > 0
                        : defaults.do_sample && defaults.options.temperature.value_or(1) != 0;
  if (settings.sample) {
    if (const Status status = check_warpers(merged); !status) {
      return in_checkpoint(status.error());
    }
    settings.temperature = merged.temperature.value_or(1);
    settings.top_k = merged.top_k.value_or(0);
    settings.top_p = merged.top_p.value_or(1);
    settings.min_p = merged.min_p.value_or(0);
  }
  settings.max_new_tokens = merged.max_new_tokens.value_or(128);
  settings.min_new_tokens =
      std::min<int64_t>(merged.min_new_tokens.value_or(0), settings.max_new_tokens);
  settings.repetition_penalty = merged.repetition_penalty.value_or(1);
  settings.no_repeat_ngram_size = merged.no_repeat_ngram_size.value_or(0);
  settings.num_beams = merged.num_beams.value_or(1);
  settings.length_penalty = merged.length_penalty.value_or(1);
  settings.early_stopping = merged.early_stopping.value_or(EarlyStopping::kFalse);
  settings.seed = merged.seed ? *merged.seed : random_seed();
  settings.repetition_guard = merged.repetition_guard.value_or(0);
  settings.top_logprobs = merged.top_logprobs.value_or(0);
  settings.stop = merged.stop;
  std::erase(settings.stop, "");
  settings.eos_ids = defaults.eos_ids;
  return settings;
}

Status fit_context(Settings& settings, int64_t prompt_tokens, int64_t image_tokens,
                   int64_t context_length) {
  const int64_t room = context_length - prompt_tokens;
  if (room < 1) {
    std::string pictures;
    if (image_tokens > 0) {
      pictures = " (" + std::to_string(image_tokens) + " of them for pictures)";
    }
    return Error{ErrorKind::kPromptTooLong,
                 "the prompt takes " + std::to_string(prompt_tokens) + " tokens" + pictures +
                     ", and the model's context of " + std::to_string(context_length) +
                     " leaves no room for an answer; shorten the prompt or give fewer pictures",
                 {}};
  }
  settings.max_new_tokens = std::min(settings.max_new_tokens, room);
  settings.min_new_tokens = std::min(settings.min_new_tokens, settings.max_new_tokens);
  return ok_status();
}

}  // namespace vlm
