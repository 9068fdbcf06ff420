// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures the engine alone on one checkpoint and prints one JSON object. No GStreamer.
//
//   engine_bench MODEL [--dtype T] [--quantization Q] [--device D] [--tokens N] [--rounds N]
//                [--warm-up N] [--batch 1,4,16] [--width W] [--height H] [--prompt-chunk N]
//                [--temperature T] [--top-k N] [--top-p P] [--repetition-penalty R]
//                [--joining] [--no-limits] [--loads N] [--busy N]
//
// Every request shows a new picture of noise and generates exactly --tokens tokens, the likeliest
// ones unless options say otherwise. Before batches are measured, one request generates --warm-up
// tokens (0: none): by then an engine of up to 40 layers on a CPU has moved its weights to where
// they stay. With --joining somebody asks while another's text is under way. With --loads the model
// is loaded so many times, each time anew, and nothing else is measured; load_gb_per_s counts the
// bytes of the weights' files, which lie in the system's cache from the second time on. With --busy
// so many threads beside compute without a pause, and the same is measured with as many threads as
// there are cores and with those that the engine chooses, nothing else. `limits` are what this machine's memory and libtorch's matrix product reach, measured in the same run.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "bench/machine_limits.h"
#include "vlm/engine.h"
#include "vlm/names.h"

namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double peak_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

struct Settings {
  vlm::ModelSpec spec;
  int tokens = 64;
  int rounds = 3;
  int warm_up = 420;
  int width = 640;
  int height = 480;
  bool limits = true;
  bool joining = false;
  int loads = 0;  // 0: once, and the rest is measured
  std::optional<int> busy;
  std::vector<int> batches = {1, 4, 16};
  vlm::Options options;
};

std::vector<int> numbers(const std::string& text) {
  std::vector<int> result;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    result.push_back(std::stoi(text.substr(at, comma - at)));
    at = comma + 1;
  }
  return result;
}

[[noreturn]] void fail(const std::string& message) {
  std::cerr << "engine_bench: " << message << "\n";
  std::exit(1);
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

void tell_choice(const vlm::Options& options, json& report) {
  if (options.temperature) report["temperature"] = *options.temperature;
  if (options.top_k) report["top_k"] = *options.top_k;
  if (options.top_p) report["top_p"] = *options.top_p;
  if (options.repetition_penalty) report["repetition_penalty"] = *options.repetition_penalty;
}

Settings read_settings(int argc, char** argv) {
  Settings settings;
  std::map<std::string, std::string> options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
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
  for (const auto& [name, value] : options) {
    if (name == "--dtype") {
      settings.spec.dtype = vlm::enum_value(vlm::kDTypeNames, value).value();
    } else if (name == "--quantization") {
      settings.spec.quantization = vlm::enum_value(vlm::kQuantizationNames, value).value();
    } else if (name == "--device") {
      settings.spec.device = value;
    } else if (name == "--prompt-chunk") {
      settings.spec.prompt_chunk = std::stoi(value);
    } else if (name == "--tokens") {
      settings.tokens = std::stoi(value);
    } else if (name == "--warm-up") {
      settings.warm_up = std::stoi(value);
    } else if (name == "--loads") {
      settings.loads = std::stoi(value);
    } else if (name == "--rounds") {
      settings.rounds = std::stoi(value);
    } else if (name == "--width") {
      settings.width = std::stoi(value);
    } else if (name == "--height") {
      settings.height = std::stoi(value);
    } else if (name == "--busy") {
      settings.busy = std::stoi(value);
    } else if (name == "--batch") {
      settings.batches = numbers(value);
    } else if (!read_choice(name, value, settings.options)) {
      fail("no option " + name);
    }
  }
  if (settings.rounds < 1) fail("--rounds takes 1 or more");
  if (settings.loads < 0) fail("--loads takes 1 or more");
  return settings;
}

vlm::Request new_request(const Settings& settings, int tokens) {
  static std::mt19937 noise(1);
  vlm::Frame frame{settings.width, settings.height, {}};
  frame.rgb.resize(static_cast<size_t>(frame.width) * static_cast<size_t>(frame.height) * 3);
  for (uint8_t& value : frame.rgb) value = static_cast<uint8_t>(noise());
  vlm::Request request;
  request.frames.push_back(std::move(frame));
  request.prompt.turns = {{vlm::Turn::Role::kUser, "What is in this picture?"}};
  request.options = settings.options;
  request.options.max_new_tokens = tokens;
  request.options.min_new_tokens = tokens;
  return request;
}

struct Round {
  double whole_s = 0;
  std::vector<vlm::Description> descriptions;
};

// So many requests at once, each of a stream of its own, until the last is done.
Round run(vlm::Engine& engine, const Settings& settings, int count, int tokens) {
  std::vector<vlm::Request> requests;
  for (int i = 0; i < count; ++i) {
    requests.push_back(new_request(settings, tokens));
    requests.back().stream = static_cast<uint64_t>(i);
  }
  std::vector<std::future<vlm::Result<vlm::Description>>> answers;
  const Clock::time_point start = Clock::now();
  for (vlm::Request& request : requests) {
    auto answer = std::make_shared<std::promise<vlm::Result<vlm::Description>>>();
    answers.push_back(answer->get_future());
    vlm::Callbacks callbacks;
    callbacks.done = [answer](auto result) { answer->set_value(std::move(result)); };
    const auto id = engine.submit(std::move(request), callbacks);
    if (!id) fail(id.error().message);
  }
  Round round;
  for (auto& answer : answers) {
    vlm::Result<vlm::Description> result = answer.get();
    if (!result) fail(result.error().message);
    round.descriptions.push_back(std::move(*result));
  }
  round.whole_s = seconds_since(start);
  return round;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

json spread(const std::vector<double>& values) {
  return {{"median", median(values)},
          {"best", *std::min_element(values.begin(), values.end())},
          {"worst", *std::max_element(values.begin(), values.end())}};
}

// Of the checkpoint's files of weights; 0 where `model` is no directory.
double weight_file_bytes(const std::string& model) {
  std::error_code error;
  double bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(model, error)) {
    const auto kind = file.path().extension();
    if (kind == ".safetensors" || kind == ".bin") bytes += static_cast<double>(file.file_size());
  }
  return bytes;
}

std::shared_ptr<vlm::Engine> open(const Settings& settings) {
  const vlm::Result<std::shared_ptr<vlm::Engine>> engine = vlm::open_engine(settings.spec);
  if (!engine) fail(engine.error().message);
  return *engine;
}

std::shared_ptr<vlm::Engine> load(const Settings& settings, std::vector<double>& took_s) {
  const Clock::time_point start = Clock::now();
  vlm::Result<std::shared_ptr<vlm::Engine>> engine = vlm::open_engine(settings.spec);
  if (!engine) fail(engine.error().message);
  took_s.push_back(seconds_since(start));
  return std::move(*engine);
}

void tell_load(const Settings& settings, const std::vector<double>& took_s, json& report) {
  const double bytes = weight_file_bytes(settings.spec.model), middle = median(took_s);
  report["load_s"] = middle;
  if (settings.loads > 0) report["load_s"] = spread(took_s);
  report["load_peak_mib"] = peak_mib();
  if (bytes > 0) report["load_gb_per_s"] = bytes / middle / 1e9;
}

// The first token of one request: picture, prompt and all.
json measure_first_token(vlm::Engine& engine, const Settings& settings) {
  std::vector<double> vision, prefill, first;
  vlm::Description last;
  for (int round = 0; round <= settings.rounds; ++round) {
    Round one = run(engine, settings, 1, 1);
    last = std::move(one.descriptions[0]);
    if (round == 0) continue;  // warms up
    vision.push_back(last.timing.vision_ms / 1000);
    prefill.push_back(last.timing.prefill_ms / 1000);
    first.push_back(one.whole_s);
  }
  return {{"prompt_tokens", last.prompt_tokens},
          {"vision_s", spread(vision)},
          {"prefill_s", spread(prefill)},
          {"first_token_s", spread(first)}};
}

json measure_batch(vlm::Engine& engine, const Settings& settings, int count) {
  std::vector<double> token_s, caption_s;
  for (int round = 0; round < settings.rounds; ++round) {
    const Round one = run(engine, settings, count, settings.tokens);
    // Streams that start together decode together: the last to start has all beside it.
    double decode_s = 1e300;
    for (const vlm::Description& description : one.descriptions) {
      decode_s = std::min(decode_s, description.timing.decode_ms / 1000);
    }
    token_s.push_back(decode_s / ((settings.tokens - 1) * count));
    caption_s.push_back(one.whole_s / count);
  }
  return {{"batch", count},
          {"decode_tokens_per_s", 1 / median(token_s)},
          {"captions_per_s", 1 / median(caption_s)},
          {"token_s", spread(token_s)},
          {"caption_s", spread(caption_s)}};
}

// Someone asks while another's text is under way, which pauses for the picture and then for each
// part of the prompt.
json measure_joining(vlm::Engine& engine, const Settings& settings) {
  std::vector<double> picture, part, first;
  const int64_t chunk = engine.info().prompt_chunk;
  for (int round = 0; round < settings.rounds; ++round) {
    std::promise<void> done;
    vlm::Callbacks callbacks;
    callbacks.done = [&](auto) { done.set_value(); };
    const auto id = engine.submit(new_request(settings, 4 * settings.tokens + 200), callbacks);
    if (!id) fail(id.error().message);
    run(engine, settings, 1, 1);  // the other's text has begun then
    const Round beside = run(engine, settings, 1, 1);
    const vlm::Description& description = beside.descriptions[0];
    const int64_t parts = (description.prompt_tokens + chunk - 1) / chunk;
    picture.push_back(description.timing.vision_ms / 1000);
    part.push_back(description.timing.prefill_ms / 1000 / static_cast<double>(parts));
    first.push_back(beside.whole_s);
    engine.cancel(*id);
    done.get_future().get();
  }
  return {{"prompt_chunk", chunk},
          {"picture_s", spread(picture)},
          {"part_s", spread(part)},
          {"first_token_s", spread(first)}};
}

// With as many threads as cores, then with those that the engine chooses, beside threads that keep
// cores busy.
json measure_busy(const Settings& settings) {
  std::vector<std::jthread> beside;
  for (int i = 0; i < *settings.busy; ++i) {
    beside.emplace_back([](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
      }
    });
  }
  json report = {{"model", settings.spec.model}, {"busy", *settings.busy}};
  for (const auto& [name, dynamic] : {std::pair("fixed", "false"), std::pair("chosen", "true")}) {
    setenv("OMP_DYNAMIC", dynamic, 1);
    const std::shared_ptr<vlm::Engine> engine = open(settings);
    json& one = report[name];
    if (settings.warm_up > 0) run(*engine, settings, 1, settings.warm_up);
    for (const int count : settings.batches) {
      one["batches"].push_back(measure_batch(*engine, settings, count));
    }
    one["first"] = measure_first_token(*engine, settings);
  }
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = read_settings(argc, argv);
  if (settings.busy) {
    std::cout << measure_busy(settings).dump(1) << std::endl;
    return 0;
  }
  json report = {{"model", settings.spec.model},
                 {"quantization", vlm::quantization_name(settings.spec.quantization)},
                 {"tokens", settings.tokens},
                 {"rounds", settings.rounds},
                 {"warm_up", settings.warm_up}};
  tell_choice(settings.options, report);
  std::vector<double> took_s;
  std::shared_ptr<vlm::Engine> engine = load(settings, took_s);
  for (int i = 1; i < settings.loads; ++i) {
    engine.reset();
    engine = load(settings, took_s);
  }
  tell_load(settings, took_s, report);
  const vlm::ModelInfo& info = engine->info();
  report["device"] = info.device;
  report["dtype"] = vlm::dtype_name(info.dtype);
  report["parameters"] = info.parameters;
  report["weight_mib"] = static_cast<double>(info.weight_bytes) / (1 << 20);
  report["kv_cache_mib"] = static_cast<double>(info.kv_cache_bytes) / (1 << 20);
  if (settings.loads > 0) {
    std::cout << report.dump(1) << std::endl;
    return 0;
  }
  report["first"] = measure_first_token(*engine, settings);
  if (settings.warm_up > 0) run(*engine, settings, 1, settings.warm_up);
  for (const int count : settings.batches) {
    report["batches"].push_back(measure_batch(*engine, settings, count));
  }
  if (settings.joining) report["joining"] = measure_joining(*engine, settings);
  report["peak_mib"] = peak_mib();
  if (settings.limits) {  // last: it takes memory
    const bool on_cpu = info.device == "cpu";
    report["limits"] = on_cpu ? bench::measure_limits() : bench::measure_gpu_limits(info.device);
  }
  std::cout << report.dump(1) << std::endl;
}
