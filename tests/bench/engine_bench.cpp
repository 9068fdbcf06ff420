// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures the engine alone on one checkpoint and prints one JSON object. No GStreamer.
//
//   engine_bench MODEL [OPTION...]        --help names the options
//
// Every request shows a new picture of noise and generates exactly --tokens tokens, the likeliest
// ones unless options say otherwise. Before batches are measured, one request generates --warm-up
// tokens (0: none): by then an engine of up to 40 layers on a CPU has moved its weights to where
// they stay. With --joining somebody asks while another's text is under way. With --loads nothing
// but loading is measured; load_gb_per_s counts the bytes of the weights' files, which lie in the
// system's cache from the second time on. With --busy nothing but speed beside busy threads is.
//
//   first     one request, from the pixels to its first token
//   batches   captions_per_s: so many requests at once, until the last is done.
//             decode_tokens_per_s: while all of them write; where there are several, in runs of
//             their own in which the others go on until the last to start is done. Null where the
//             cache or the context ended one of the others before.
//   memory    of the process, in MiB, at the end of all batches: what it holds (`resident_mib`), of
//             that the weights, keys and values of as many tokens as were cached at once, and the
//             rest. The cache is reserved whole, but takes memory only as far as it was used;
//             weights that are mapped and were never read (most of the embeddings) make the rest
//             smaller. On a GPU weights and cache are not part of the process's memory.
//   limits    what the machine reaches: `read_gb_s`, reading memory, and `matmul_gflops`, large
//             products in the type that the engine multiplies in (`matmul_type`)
//   of_read_rate    the bytes of the weights that a step reads, at the rate reached, as a share of
//             the read rate. On a CPU of the better of two measured right before and after each
//             round, since other users of the memory come and go.
//   of_matmul       2 x parameters x tokens of picture and prompt in the time to the first token,
//             as a share of the matmul limit (on a CPU the better of before and after)

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/engine_bench_settings.h"
#include "bench/full_batch.h"
#include "bench/machine_limits.h"
#include "bench/peak_memory.h"
#include "bench/work.h"
#include "kernels/product.h"
#include "loader/checkpoint.h"
#include "vlm/engine.h"
#include "vlm/names.h"

namespace {

using bench::fail;
using bench::Settings;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Named, unlike the rest, only where they were asked for.
void tell_choice(const vlm::Options& options, json& report) {
  if (options.temperature) report["temperature"] = *options.temperature;
  if (options.top_k) report["top_k"] = *options.top_k;
  if (options.top_p) report["top_p"] = *options.top_p;
  if (options.repetition_penalty) report["repetition_penalty"] = *options.repetition_penalty;
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

// In which type the engine multiplies pictures and prompts.
c10::ScalarType product_type(const vlm::ModelInfo& info, vlm::Quantization quantization) {
  const bool asked =
      quantization == vlm::Quantization::kW8A8 || quantization == vlm::Quantization::kW4A8;
  const bool in_bytes = vlm::gains_by_bytes() && quantization != vlm::Quantization::kNone &&
                        (asked || vlm::product_families().front().int8.inputs > 0);
  switch (info.dtype) {
    case vlm::DType::kBFloat16:
      return in_bytes ? c10::ScalarType::Char : c10::ScalarType::BFloat16;
    case vlm::DType::kFloat16:
      return c10::ScalarType::Half;
    default:
      return c10::ScalarType::Float;
  }
}

bench::Work work_of(const vlm::ModelConfig& config, const vlm::ModelInfo& info,
                    vlm::Quantization quantization) {
  std::optional<vlm::PackedFormat> packed;
  if (quantization == vlm::Quantization::kInt8 || quantization == vlm::Quantization::kW8A8) {
    packed = vlm::PackedFormat::kInt8;
  } else if (quantization != vlm::Quantization::kNone) {
    packed = vlm::PackedFormat::kInt4;
  }
  return bench::work_of(config, info.dtype == vlm::DType::kFloat32 ? 4 : 2, packed);
}

struct Round {
  double whole_s = 0;
  std::vector<vlm::Description> descriptions;
};

class Bench {
 public:
  Bench(const Settings& settings, vlm::Engine& engine, const vlm::ModelConfig& config,
        bench::PeakMemory& peak)
      : settings_(settings),
        engine_(engine),
        on_cpu_(engine.info().device == "cpu"),
        type_(product_type(engine.info(), settings.spec.quantization)),
        work_(work_of(config, engine.info(), settings.spec.quantization)),
        image_tokens_(config.image_tokens()),
        peak_(peak) {}

  void measure_speed(json& report) {
    report["first"] = measure_first_token();
    if (settings_.warm_up > 0) run(1, settings_.warm_up);
    for (const int count : settings_.batches) report["batches"].push_back(measure_batch(count));
  }

  void measure(json& report) {
    measure_speed(report);
    if (settings_.joining) report["joining"] = measure_joining();
    report["memory"] = memory();
    report["peak_mib"] = peak_.mib();
    if (settings_.limits) add_limits(report);
  }

 private:
  using Answer = std::future<vlm::Result<vlm::Description>>;

  Answer submit(vlm::Request request, vlm::RequestId* id = nullptr) {
    auto answer = std::make_shared<std::promise<vlm::Result<vlm::Description>>>();
    vlm::Callbacks callbacks;
    callbacks.done = [answer](auto result) { answer->set_value(std::move(result)); };
    const auto accepted = engine_.submit(std::move(request), callbacks);
    if (!accepted) fail(accepted.error().message);
    if (id != nullptr) *id = *accepted;
    return answer->get_future();
  }

  static vlm::Description told(Answer& answer) {
    vlm::Result<vlm::Description> result = answer.get();
    if (!result) fail(result.error().message);
    return std::move(*result);
  }

  // So many requests at once, each of a stream of its own, until the last is done.
  Round run(int count, int tokens) {
    std::vector<vlm::Request> requests;
    for (int i = 0; i < count; ++i) {
      requests.push_back(new_request(settings_, tokens));
      requests.back().stream = static_cast<uint64_t>(i);
    }
    std::vector<Answer> answers;
    const Clock::time_point start = Clock::now();
    for (vlm::Request& request : requests) answers.push_back(submit(std::move(request)));
    Round round;
    for (Answer& answer : answers) round.descriptions.push_back(told(answer));
    round.whole_s = seconds_since(start);
    count_cached(round.descriptions);
    return round;
  }

  // Tokens that a text may have while so many others have as many: what the context and each one's
  // share of the cache leave.
  int room(int count) const {
    const vlm::ModelInfo& info = engine_.info();
    const int64_t slots = info.kv_cache_bytes / work_.slot_bytes;
    return static_cast<int>(std::min(slots / count, info.context_length) - prompt_tokens_);
  }

  // One text of --tokens tokens beside so many others that begin before it and go on until it is
  // done: seconds for each token of all of them, or nothing where the others ended before.
  std::optional<double> full_batch(int others) {
    const int tokens = std::max(room(others + 1), settings_.tokens);
    std::vector<Answer> answers;
    std::vector<vlm::RequestId> ids(static_cast<size_t>(others));
    std::vector<vlm::Request> requests;
    for (int i = 0; i <= others; ++i) {
      requests.push_back(new_request(settings_, i < others ? tokens : settings_.tokens));
      requests.back().stream = static_cast<uint64_t>(i);
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      answers.push_back(submit(std::move(requests[i]), &ids[i]));
    }
    Answer last = submit(std::move(requests.back()));
    std::vector<vlm::Description> all = {told(last)};
    for (const vlm::RequestId id : ids) engine_.cancel(id);
    for (Answer& answer : answers) all.push_back(told(answer));
    count_cached(all);
    std::vector<bench::TextRun> runs;
    for (const vlm::Description& one : all) {
      runs.push_back({static_cast<int64_t>(one.token_ids.size()), one.timing.decode_ms / 1000,
                      one.finish_reason == vlm::FinishReason::kCancelled});
    }
    return bench::full_batch_token_s(runs.front(), {runs.begin() + 1, runs.end()});
  }

  void count_cached(const std::vector<vlm::Description>& descriptions) {
    int64_t tokens = 0;
    for (const vlm::Description& one : descriptions) {
      tokens += one.prompt_tokens + static_cast<int64_t>(one.token_ids.size());
      written_ += static_cast<int64_t>(one.token_ids.size());
    }
    most_cached_ = std::max(most_cached_, tokens);
  }

  // Right now; 0 where nobody asks, or a GPU has the weights.
  double read_gb_s() {
    if (!settings_.limits || !on_cpu_) return 0;
    return peak_.leave_out([] { return bench::read_gb_s(); });
  }

  double matmul_gflops() {
    if (!settings_.limits || !on_cpu_) return 0;
    return peak_.leave_out([&] { return bench::matmul_gflops(type_).value_or(0); });
  }

  // The first token of one request: picture, prompt and all.
  json measure_first_token() {
    std::vector<double> vision, prefill, first;
    vlm::Description last;
    run(1, 1);  // warms up
    const double before = matmul_gflops();
    for (int round = 0; round < settings_.rounds; ++round) {
      Round one = run(1, 1);
      last = std::move(one.descriptions[0]);
      vision.push_back(last.timing.vision_ms / 1000);
      prefill.push_back(last.timing.prefill_ms / 1000);
      first.push_back(one.whole_s);
    }
    prompt_tokens_ = last.prompt_tokens;
    const int64_t images = (last.image_tokens + image_tokens_ - 1) / image_tokens_;
    first_gflop_ = static_cast<double>(work_.first_token_operations(images, prompt_tokens_)) / 1e9;
    json report = {{"prompt_tokens", prompt_tokens_},
                   {"gflop", first_gflop_},
                   {"vision_s", spread(vision)},
                   {"prefill_s", spread(prefill)},
                   {"first_token_s", spread(first)}};
    if (const double limit = std::max(before, matmul_gflops()); limit > 0) {
      report["of_matmul"] = first_gflop_ / median(first) / limit;
      report["limits"]["matmul_gflops"] = limit;
    }
    return report;
  }

  // Share of the read rate that a step's weights take at so many seconds for each token of a batch.
  double share(double token_s, int count, double read_gb_s) const {
    return static_cast<double>(work_.token_bytes) / (token_s * count) / (read_gb_s * 1e9);
  }

  json measure_batch(int count) {
    std::vector<double> token_s, caption_s, shares, rates;
    double before = read_gb_s();
    for (int round = 0; round < settings_.rounds; ++round) {
      const Round one = run(count, settings_.tokens);
      caption_s.push_back(one.whole_s / count);
      std::optional<double> token;
      if (count == 1) {
        token = one.descriptions[0].timing.decode_ms / 1000 / (settings_.tokens - 1);
      } else {
        if (settings_.limits) before = read_gb_s();
        token = full_batch(count - 1);
      }
      const double after = read_gb_s();
      rates.push_back(std::max(before, after));
      before = after;
      if (!token) continue;
      token_s.push_back(*token);
      if (rates.back() > 0) shares.push_back(share(*token, count, rates.back()));
    }
    json report = {{"batch", count},
                   {"decode_tokens_per_s", nullptr},
                   {"captions_per_s", 1 / median(caption_s)},
                   {"caption_s", spread(caption_s)}};
    if (!token_s.empty()) {
      report["decode_tokens_per_s"] = 1 / median(token_s);
      report["token_s"] = spread(token_s);
    }
    if (!shares.empty()) {
      report["of_read_rate"] = median(shares);
      report["limits"]["read_gb_s"] = median(rates);
    }
    return report;
  }

  // Someone asks while another's text is under way, which pauses for the picture and then for each
  // part of the prompt.
  json measure_joining() {
    std::vector<double> picture, part, first;
    const int64_t chunk = engine_.info().prompt_chunk;
    for (int round = 0; round < settings_.rounds; ++round) {
      vlm::RequestId id = 0;
      Answer other = submit(new_request(settings_, 4 * settings_.tokens + 200), &id);
      run(1, 1);  // the other's text has begun then
      const Round beside = run(1, 1);
      const vlm::Description& description = beside.descriptions[0];
      const int64_t parts = (description.prompt_tokens + chunk - 1) / chunk;
      picture.push_back(description.timing.vision_ms / 1000);
      part.push_back(description.timing.prefill_ms / 1000 / static_cast<double>(parts));
      first.push_back(beside.whole_s);
      engine_.cancel(id);
      other.wait();
    }
    return {{"prompt_chunk", chunk},
            {"picture_s", spread(picture)},
            {"part_s", spread(part)},
            {"first_token_s", spread(first)}};
  }

  json memory() const {
    json report = {{"after_tokens", written_}, {"resident_mib", vlm::test::status_mib("VmRSS")}};
    if (on_cpu_) {
      constexpr double kMib = 1 << 20;
      const double weights = static_cast<double>(engine_.info().weight_bytes) / kMib;
      const double cached = static_cast<double>(most_cached_ * work_.slot_bytes) / kMib;
      report["weights_mib"] = weights;
      report["kv_used_mib"] = cached;
      report["rest_mib"] = report["resident_mib"].get<double>() - weights - cached;
    }
    return report;
  }

  // Last: on a GPU it takes memory, and that GPU is nobody else's, so that later is as good.
  void add_limits(json& report) const {
    json& limits = report["limits"];
    if (!on_cpu_) {
      limits = bench::measure_gpu_limits(engine_.info().device);
      limits["matmul_type"] = "bfloat16";
      json& first = report["first"];
      first["of_matmul"] = first_gflop_ / first["first_token_s"]["median"].get<double>() /
                           limits["matmul_gflops"].get<double>();
      const double read =
          std::max(limits["read_gb_s"].get<double>(), limits["copy_gb_s"].get<double>());
      for (json& batch : report["batches"]) {
        if (!batch.contains("token_s")) continue;
        batch["of_read_rate"] =
            share(batch["token_s"]["median"].get<double>(), batch["batch"].get<int>(), read);
      }
      return;
    }
    double read = 0;
    for (const json& batch : report["batches"]) {
      if (batch.contains("limits")) {
        read = std::max(read, batch["limits"]["read_gb_s"].get<double>());
      }
    }
    limits = {{"read_gb_s", read},
              {"matmul_gflops", report["first"]["limits"]["matmul_gflops"]},
              {"matmul_type",
               type_ == c10::ScalarType::Char ? "int8" : vlm::dtype_name(engine_.info().dtype)}};
  }

  const Settings& settings_;
  vlm::Engine& engine_;
  const bool on_cpu_;
  const c10::ScalarType type_;
  const bench::Work work_;
  const int64_t image_tokens_;  // of one image of the tower's size
  bench::PeakMemory& peak_;
  int64_t prompt_tokens_ = 0;
  double first_gflop_ = 0;
  int64_t most_cached_ = 0;  // tokens at once, at most
  int64_t written_ = 0;      // tokens of all texts
};

vlm::ModelConfig config_of(const vlm::ModelSpec& spec) {
  const auto checkpoint = vlm::Checkpoint::open(spec);
  if (!checkpoint) fail(checkpoint.error().message);
  return (*checkpoint)->config();
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
  if (bytes > 0) report["load_gb_per_s"] = bytes / middle / 1e9;
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
  bench::PeakMemory peak;
  for (const auto& [name, dynamic] : {std::pair("fixed", "false"), std::pair("chosen", "true")}) {
    setenv("OMP_DYNAMIC", dynamic, 1);
    std::vector<double> took_s;
    const std::shared_ptr<vlm::Engine> engine = load(settings, took_s);
    Bench(settings, *engine, config_of(settings.spec), peak).measure_speed(report[name]);
  }
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = bench::read_settings(argc, argv);
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
  bench::PeakMemory peak;
  std::vector<double> took_s;
  std::shared_ptr<vlm::Engine> engine = load(settings, took_s);
  for (int i = 1; i < settings.loads; ++i) {
    engine.reset();
    engine = load(settings, took_s);
  }
  tell_load(settings, took_s, report);
  report["load_peak_mib"] = peak.mib();
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
  Bench(settings, *engine, config_of(settings.spec), peak).measure(report);
  std::cout << report.dump(1) << std::endl;
}
