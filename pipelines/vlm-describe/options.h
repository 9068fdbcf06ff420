// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "vlm/types.h"

namespace describe {

enum class Format { kText, kJsonl, kVtt, kSrt };

/// What the exit status says; the numbers are a contract with scripts.
enum ExitStatus : int { kAllDescribed = 0, kSomeFailed = 1, kUsage = 2, kNoModel = 3 };

/// The command line, checked as far as that is possible without the model.
struct Settings {
  std::vector<std::string> inputs;  ///< as given, at least one
  vlm::ModelSpec model;
  std::string prompt_format = "auto";
  std::optional<std::string> system;
  std::string prompt;
  std::string prompt_file;  ///< where it was read from; empty: nowhere
  vlm::Options options;

  uint64_t interval_ns = 2'000'000'000;
  unsigned frames = 1;
  std::optional<uint64_t> start_ns;
  std::optional<uint64_t> end_ns;
  std::chrono::nanoseconds lost_after = std::chrono::seconds(10);
  std::optional<std::chrono::nanoseconds> give_up_after;  ///< null: never

  std::optional<Format> format;  ///< null: by the output's extension, else text
  std::string output;            ///< empty: standard output
  std::string trace;             ///< empty: none
  bool quiet = false;
  bool verbose = false;

  vlm::Prompt request_prompt() const;
};

/// Settings, or the exit status where there is nothing to do (--help, --version: printed to
/// standard output) or the command line is wrong (one line on standard error). Thread-bound.
std::variant<Settings, ExitStatus> parse_options(int argc, char** argv);

}  // namespace describe
