// SPDX-License-Identifier: LGPL-2.1-or-later
#include "options.h"

#include <glib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "help.h"
#include "picture/picture.h"
#include "report.h"
#include "values.h"
#include "vlm/names.h"

namespace describe {

namespace {

constexpr uint64_t kMaxPromptFile = 16 << 20;

constexpr std::array kPromptFormats = {"auto",
                                       "hf",
                                       "raw",
                                       "vicuna_v1",
                                       "v1",
                                       "llava_v1",
                                       "v1_mmtag",
                                       "llava_v0",
                                       "v0",
                                       "default",
                                       "v0_mmtag",
                                       "llava_llama_2",
                                       "llama_2",
                                       "llava_llama_3",
                                       "mistral_instruct",
                                       "mistral_direct",
                                       "chatml_direct",
                                       "mpt",
                                       "plain",
                                       "v0_plain"};

/// Options with a value, short name or 0.
constexpr std::pair<const char*, char> kTextOptions[] = {{"model", 'm'},
                                                         {"vision-tower", 0},
                                                         {"model-base", 0},
                                                         {"prompt", 'p'},
                                                         {"prompt-file", 0},
                                                         {"prompt-format", 0},
                                                         {"system", 0},
                                                         {"image-aspect-ratio", 0},
                                                         {"max-new-tokens", 0},
                                                         {"min-new-tokens", 0},
                                                         {"temperature", 0},
                                                         {"top-k", 0},
                                                         {"top-p", 0},
                                                         {"min-p", 0},
                                                         {"repetition-penalty", 0},
                                                         {"no-repeat-ngram-size", 0},
                                                         {"repetition-guard", 0},
                                                         {"top-logprobs", 0},
                                                         {"num-beams", 0},
                                                         {"length-penalty", 0},
                                                         {"early-stopping", 0},
                                                         {"seed", 0},
                                                         {"device", 0},
                                                         {"dtype", 0},
                                                         {"quantization", 0},
                                                         {"interval", 0},
                                                         {"frames", 0},
                                                         {"start", 0},
                                                         {"end", 0},
                                                         {"lost-after", 0},
                                                         {"give-up-after", 0},
                                                         {"format", 'f'},
                                                         {"output", 'o'},
                                                         {"trace", 0}};

/// What GOption stores, before it is checked: raw bytes, since prompts may be in UTF-8 whatever the
/// locale. GOption keeps pointers into it.
struct Raw {
  std::map<std::string, char*> texts;
  char** stop = nullptr;
  char** inputs = nullptr;
  gboolean quiet = FALSE;
  gboolean verbose = FALSE;
  gboolean version = FALSE;
  gboolean help = FALSE;

  Raw() = default;
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;
  ~Raw() {
    for (const auto& [name, text] : texts) g_free(text);
    g_strfreev(stop);
    g_strfreev(inputs);
  }
  /// Null where the option was not given.
  const char* operator[](const char* name) const { return texts.at(name); }
};

/// Thrown inside this file only: a wrong command line, as one sentence.
struct UsageError {
  std::string sentence;
};

[[noreturn]] void refuse(const std::string& option, const char* value, const std::string& wanted) {
  throw UsageError{"--" + option + " takes " + wanted + ", not \"" + value + "\""};
}

const char* utf8(const std::string& option, const char* value) {
  if (!g_utf8_validate(value, -1, nullptr)) throw UsageError{option + " is not valid UTF-8"};
  return value;
}

void add_name(std::string& list, const char* name) {
  list += list.empty() ? "" : ", ";
  list += name;
}

template <typename Number>
void take(std::optional<Number>& out, const Raw& raw, const char* option, const std::string& wanted,
          const std::function<bool(Number)>& good) {
  const char* value = raw[option];
  if (value == nullptr) return;
  out = parse_number<Number>(value);
  if (!out || !good(*out)) refuse(option, value, wanted);
}

template <typename Enum, size_t kCount>
void take_name(Enum& out, const vlm::EnumNames<Enum, kCount>& names, const Raw& raw,
               const char* option) {
  const char* value = raw[option];
  if (value == nullptr) return;
  if (const std::optional<Enum> found = vlm::enum_value(names, value)) {
    out = *found;
    return;
  }
  std::string wanted;
  for (const auto& [known, name] : names) add_name(wanted, name);
  refuse(option, value, "one of " + wanted);
}

void take_model(const Raw& raw, vlm::ModelSpec& spec) {
  if (raw["model"] != nullptr && *raw["model"] == '\0') {
    throw UsageError{"--model is empty; give the directory of a checkpoint"};
  }
  if (raw["model"] != nullptr) spec.model = raw["model"];
  if (raw["vision-tower"] != nullptr) spec.vision_tower = raw["vision-tower"];
  if (raw["model-base"] != nullptr) spec.model_base = raw["model-base"];
  if (raw["device"] != nullptr) {
    const std::string device = raw["device"];
    const bool numbered = device.starts_with("cuda:") && parse_number<unsigned>(device.substr(5));
    if (device != "auto" && device != "cpu" && device != "cuda" && !numbered) {
      refuse("device", device.c_str(), "auto, cpu, cuda or cuda:N");
    }
    spec.device = device;
  }
  take_name(spec.dtype, vlm::kDTypeNames, raw, "dtype");
  take_name(spec.quantization, vlm::kQuantizationNames, raw, "quantization");
}

std::string prompt_of(const Raw& raw) {
  if (raw["prompt"] != nullptr && raw["prompt-file"] != nullptr) {
    throw UsageError{"--prompt and --prompt-file exclude each other; give one of them"};
  }
  std::string prompt = "Describe the scene.";
  std::string name = "--prompt";
  if (raw["prompt"] != nullptr) {
    prompt = raw["prompt"];
  } else if (raw["prompt-file"] != nullptr) {
    name = std::string("the prompt file \"") + raw["prompt-file"] + "\"";
    const auto bytes = read_file(raw["prompt-file"], kMaxPromptFile);
    if (!bytes) throw UsageError{name + " " + bytes.error().message};
    prompt.assign(bytes->begin(), bytes->end());
    // The line break that editors leave at the end is not meant.
    if (prompt.ends_with('\n')) prompt.pop_back();
    if (prompt.ends_with('\r')) prompt.pop_back();
    if (prompt.find('\0') != prompt.npos) throw UsageError{name + " is not text"};
  }
  utf8(name, prompt.c_str());
  if (prompt.find_first_not_of(" \t\r\n") == prompt.npos) {
    throw UsageError{name +
                     " is empty; say what to do with the picture, as in \"Describe the scene.\""};
  }
  return prompt;
}

void take_prompt(const Raw& raw, Settings& settings) {
  settings.prompt = prompt_of(raw);
  if (raw["prompt-file"] != nullptr) settings.prompt_file = raw["prompt-file"];
  if (raw["system"] != nullptr) settings.system = utf8("--system", raw["system"]);
  if (raw["prompt-format"] != nullptr) {
    const std::string format = raw["prompt-format"];
    if (std::find(kPromptFormats.begin(), kPromptFormats.end(), format) == kPromptFormats.end()) {
      std::string wanted;
      for (const char* name : kPromptFormats) add_name(wanted, name);
      refuse("prompt-format", format.c_str(), "one of " + wanted);
    }
    settings.prompt_format = format;
  }
  take_name(settings.options.image_aspect_ratio, vlm::kAspectRatioNames, raw, "image-aspect-ratio");
}

void take_generation(const Raw& raw, vlm::Options& options) {
  const auto at_least = [](int low) { return [low](int n) { return n >= low; }; };
  constexpr double kMost = std::numeric_limits<float>::max();  // as the element's properties
  take<int>(options.max_new_tokens, raw, "max-new-tokens", "a whole number from 1", at_least(1));
  take<int>(options.min_new_tokens, raw, "min-new-tokens", "a whole number from 0", at_least(0));
  take<double>(options.temperature, raw, "temperature", "a number from 0 to 3.4e38",
               [](double v) { return v >= 0 && v <= kMost; });
  take<int>(options.top_k, raw, "top-k", "a whole number from 0", at_least(0));
  take<double>(options.top_p, raw, "top-p", "a number above 0 and up to 1",
               [](double v) { return v > 0 && v <= 1; });
  take<double>(options.min_p, raw, "min-p", "a number from 0 to 1",
               [](double v) { return v >= 0 && v <= 1; });
  take<double>(options.repetition_penalty, raw, "repetition-penalty",
               "a number above 0 and up to 3.4e38", [](double v) { return v > 0 && v <= kMost; });
  take<int>(options.no_repeat_ngram_size, raw, "no-repeat-ngram-size", "a whole number from 0",
            at_least(0));
  take<int>(options.repetition_guard, raw, "repetition-guard", "0 or a whole number from 2",
            [](int n) { return n == 0 || n >= 2; });
  take<int>(options.top_logprobs, raw, "top-logprobs", "a whole number from 0 to 1024",
            [](int n) { return n >= 0 && n <= 1024; });
  take<int>(options.num_beams, raw, "num-beams", "a whole number from 1", at_least(1));
  take<double>(options.length_penalty, raw, "length-penalty", "a number from -3.4e38 to 3.4e38",
               [](double v) { return std::fabs(v) <= kMost; });
  take<uint64_t>(options.seed, raw, "seed", "a whole number from 0 to 2^64 - 1",
                 [](uint64_t) { return true; });
  if (raw["early-stopping"] != nullptr) {
    options.early_stopping.emplace();
    take_name(*options.early_stopping, vlm::kEarlyStoppingNames, raw, "early-stopping");
  }
  for (char** stop = raw.stop; stop != nullptr && *stop != nullptr; ++stop) {
    if (**stop == '\0') throw UsageError{"--stop is empty; give the text at which to end"};
    options.stop.emplace_back(utf8("--stop", *stop));
  }
  if (options.min_new_tokens && options.max_new_tokens &&
      *options.min_new_tokens > *options.max_new_tokens) {
    throw UsageError{"--min-new-tokens " + std::to_string(*options.min_new_tokens) +
                     " is more than --max-new-tokens " + std::to_string(*options.max_new_tokens)};
  }
}

constexpr uint64_t kShortestInterval = 1000000;  // of the element's

void take_time(std::optional<uint64_t>& out, const Raw& raw, const char* option) {
  const char* value = raw[option];
  if (value == nullptr) return;
  out = parse_seconds(value);
  if (!out) refuse(option, value, "a number of seconds from 0");
}

void take_video(const Raw& raw, Settings& settings) {
  std::optional<uint64_t> interval;
  take_time(interval, raw, "interval");
  if (interval && *interval < kShortestInterval && parse_number<double>(raw["interval"]) != 0) {
    refuse("interval", raw["interval"], "0 or a number of seconds from 0.001");
  }
  settings.interval_ns = interval.value_or(settings.interval_ns);
  std::optional<unsigned> frames;
  take<unsigned>(frames, raw, "frames", "a whole number from 1 to 1024",
                 [](unsigned n) { return n >= 1 && n <= 1024; });
  settings.frames = frames.value_or(settings.frames);
  if (settings.interval_ns == 0 && settings.frames > 1) {
    throw UsageError{"--interval 0 describes single frames; with --frames " +
                     std::to_string(settings.frames) + " give a longer interval"};
  }
  take_time(settings.start_ns, raw, "start");
  take_time(settings.end_ns, raw, "end");
  if (settings.end_ns && *settings.end_ns <= settings.start_ns.value_or(0)) {
    throw UsageError{"--end must lie after --start"};
  }
}

void take_live(const Raw& raw, Settings& settings) {
  std::optional<uint64_t> lost_after, give_up_after;
  take_time(lost_after, raw, "lost-after");
  if (lost_after == 0) refuse("lost-after", raw["lost-after"], "a number of seconds above 0");
  take_time(give_up_after, raw, "give-up-after");
  if (lost_after) settings.lost_after = std::chrono::nanoseconds(*lost_after);
  if (give_up_after) settings.give_up_after = std::chrono::nanoseconds(*give_up_after);
}

void take_output(const Raw& raw, Settings& settings) {
  if (raw["format"] != nullptr) {
    constexpr vlm::EnumNames<Format, 4> kNames = {{{Format::kText, "text"},
                                                   {Format::kJsonl, "jsonl"},
                                                   {Format::kVtt, "vtt"},
                                                   {Format::kSrt, "srt"}}};
    settings.format.emplace();
    take_name(*settings.format, kNames, raw, "format");
  }
  if (raw["output"] != nullptr) {
    if (*raw["output"] == '\0')
      throw UsageError{"--output is empty; give a file, or - for standard output"};
    settings.output = std::string_view(raw["output"]) == "-" ? "" : raw["output"];
  }
  if (raw["trace"] != nullptr) {
    if (*raw["trace"] == '\0') throw UsageError{"--trace is empty; give a file"};
    settings.trace = raw["trace"];
  }
  if (raw.quiet && raw.verbose) throw UsageError{"--quiet and --verbose exclude each other"};
  settings.quiet = raw.quiet;
  settings.verbose = raw.verbose;
}

Settings checked(const Raw& raw) {
  Settings settings;
  for (char** input = raw.inputs; input != nullptr && *input != nullptr; ++input) {
    if (**input == '\0') throw UsageError{"an INPUT is empty; give a file, a directory or a URI"};
    settings.inputs.emplace_back(*input);
  }
  take_model(raw, settings.model);
  take_prompt(raw, settings);
  take_generation(raw, settings.options);
  take_video(raw, settings);
  take_live(raw, settings);
  take_output(raw, settings);
  if (settings.inputs.empty()) {
    throw UsageError{"there is no INPUT; give a picture, a video, a directory or a URI"};
  }
  return settings;
}

using ContextPtr = std::unique_ptr<GOptionContext, decltype(&g_option_context_free)>;

ContextPtr make_context(Raw& raw) {
  std::vector<GOptionEntry> entries;
  for (const auto& [name, short_name] : kTextOptions) {
    entries.push_back({name, short_name, 0, G_OPTION_ARG_FILENAME, &raw.texts[name], "", ""});
  }
  entries.push_back({"stop", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &raw.stop, "", ""});
  entries.push_back({"quiet", 'q', 0, G_OPTION_ARG_NONE, &raw.quiet, "", nullptr});
  entries.push_back({"verbose", 'v', 0, G_OPTION_ARG_NONE, &raw.verbose, "", nullptr});
  entries.push_back({"version", 0, 0, G_OPTION_ARG_NONE, &raw.version, "", nullptr});
  entries.push_back({"help", 'h', 0, G_OPTION_ARG_NONE, &raw.help, "", nullptr});
  entries.push_back(
      {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &raw.inputs, "", nullptr});
  entries.push_back({});
  ContextPtr context(g_option_context_new(nullptr), g_option_context_free);
  g_option_context_set_help_enabled(context.get(), FALSE);
  g_option_context_add_main_entries(context.get(), entries.data(), nullptr);
  return context;
}

}  // namespace

vlm::Prompt Settings::request_prompt() const {
  vlm::Prompt result;
  result.format = prompt_format;
  result.system = system;
  result.turns.push_back({vlm::Turn::Role::kUser, prompt});
  return result;
}

std::variant<Settings, ExitStatus> parse_options(int argc, char** argv) {
  Raw raw;
  const ContextPtr context = make_context(raw);
  GError* error = nullptr;
  try {
    if (!g_option_context_parse(context.get(), &argc, &argv, &error)) {
      const std::string message = error->message;
      g_error_free(error);
      throw UsageError{message};
    }
    if (raw.help) {
      std::fputs(kHelp, stdout);
      return kAllDescribed;
    }
    if (raw.version) {
      std::puts("vlm-describe " VLM_VERSION);
      return kAllDescribed;
    }
    return checked(raw);
  } catch (const UsageError& usage) {
    complain(usage.sentence + " (vlm-describe --help explains)");
    return kUsage;
  }
}

}  // namespace describe
