// SPDX-License-Identifier: LGPL-2.1-or-later
#include "bench/engine_bench_settings.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>

#include "vlm/names.h"

namespace bench {
namespace {

constexpr char kHelp[] =
    R"(engine_bench MODEL [OPTION...]: measures the engine alone on one checkpoint; prints one JSON object.

  --dtype NAME, --quantization NAME, --device NAME
                        as vlm-describe's
  --tokens N            of each text, 2 or more (default: 64)
  --rounds N            so often (default: 3)
  --warm-up N           tokens of one text that is written before batches are measured; 0: none
                        (default: 420)
  --batch N,N...        texts at once (default: 1,4,16)
  --width W, --height H of the pictures, in pixels (default: 640, 480)
  --prompt-chunk N      prompt tokens that one step takes in beside other texts; 0: as suits the device
  --temperature T, --top-k N, --top-p P, --repetition-penalty R
                        as vlm-describe's; likeliest tokens without them
  --joining             also measure somebody who asks while another's text is under way
  --loads N             only load the model, so many times, each time anew
  --busy N              only speed beside N threads that compute without a pause, with as many
                        threads as cores and with those that the engine chooses
  --no-limits           do not measure what the machine itself reaches, nor shares of it

The first lines of engine_bench.cpp and tests/bench/README.md say what the figures mean.
)";

std::vector<int> numbers(const std::string& text) {
  std::vector<int> result;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    result.push_back(std::stoi(text.substr(at, comma - at)));
    at = comma + 1;
  }
  return result;
}

// How tokens are chosen; false where the option is another one.
bool read_choice(const std::string& name, const std::string& value, vlm::Options& options) {
  if (name == "--temperature") {
    options.temperature = std::stod(value);
  } else if (name == "--top-k") {
    options.top_k = std::stoi(value);
  } else if (name == "--top-p") {
    options.top_p = std::stod(value);
  } else if (name == "--repetition-penalty") {
    options.repetition_penalty = std::stod(value);
  } else {
    return false;
  }
  return true;
}

}  // namespace

void fail(const std::string& message) {
  std::cerr << "engine_bench: " << message << "\n";
  std::exit(1);
}

Settings read_settings(int argc, char** argv) {
  Settings settings;
  std::map<std::string, std::string> options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--help" || word == "-h") {
      std::cout << kHelp;
      std::exit(0);
    }
    if (word == "--no-limits") {
      settings.limits = false;
    } else if (word == "--joining") {
      settings.joining = true;
    } else if (word.rfind("--", 0) != 0) {
      settings.spec.model = word;
    } else if (i + 1 < argc) {
      options[word] = argv[++i];
    } else {
      fail(word + " takes a value");
    }
  }
  if (settings.spec.model.empty()) fail("which checkpoint? engine_bench MODEL");
  const std::map<std::string, int*> numbers_of = {
      {"--tokens", &settings.tokens}, {"--warm-up", &settings.warm_up},
      {"--loads", &settings.loads},   {"--rounds", &settings.rounds},
      {"--width", &settings.width},   {"--height", &settings.height}};
  for (const auto& [name, value] : options) {
    if (const auto number = numbers_of.find(name); number != numbers_of.end()) {
      *number->second = std::stoi(value);
    } else if (name == "--dtype") {
      settings.spec.dtype = vlm::enum_value(vlm::kDTypeNames, value).value();
    } else if (name == "--quantization") {
      settings.spec.quantization = vlm::enum_value(vlm::kQuantizationNames, value).value();
    } else if (name == "--device") {
      settings.spec.device = value;
    } else if (name == "--prompt-chunk") {
      settings.spec.prompt_chunk = std::stoi(value);
    } else if (name == "--busy") {
      settings.busy = std::stoi(value);
    } else if (name == "--batch") {
      settings.batches = numbers(value);
    } else if (!read_choice(name, value, settings.options)) {
      fail("no option " + name);
    }
  }
  if (settings.loads < 0) fail("--loads takes 1 or more");
  if (settings.rounds < 1) fail("--rounds takes 1 or more");
  if (settings.tokens < 2) fail("--tokens takes 2 or more");
  return settings;
}

}  // namespace bench
