// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vlm/types.h"

namespace bench {

/// What engine_bench is asked to measure.
struct Settings {
  vlm::ModelSpec spec;
  int tokens = 64;
  int rounds = 3;
  int warm_up = 420;
  int width = 640;
  int height = 480;
  bool limits = true;
  bool joining = false;
  int loads = 0;            ///< 0: once, and the rest is measured
  std::optional<int> busy;  ///< threads that compute beside the engine
  std::vector<int> batches = {1, 4, 16};
  vlm::Options options;
};

/// Ends the program with this complaint and status 1.
[[noreturn]] void fail(const std::string& message);

/// The command line; ends the program where it is wrong, or asks for help.
Settings read_settings(int argc, char** argv);

}  // namespace bench
