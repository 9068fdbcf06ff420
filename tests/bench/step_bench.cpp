// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures one step of a decoder on the CPU in bfloat16, a token of each of some texts, and prints
// JSON. Each step is followed by one pass over other memory, so that what else the machine does
// meets both.
//
//   step_bench MODEL [--quantization none|int8|int4|w4a8] [--rows N,N...] [--past TOKENS]
//              [--steps N]
//
//   step          as one piece of work of all threads (decoder/cpu_step.h)
//   general       as Decoder::forward() does it, in turn with that
//   best_ms, median_ms  of a step
//   of_read_rate  the bytes of weights, keys and values that a step reads, at the rate reached, as
//                 a share of the pass' rate right behind it: the median

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/huge_memory.h"
#include "bench/machine_limits.h"
#include "bench/work.h"
#include "decoder/cpu_step.h"
#include "decoder/decoder.h"
#include "decoder/step_buffers.h"
#include "fusion/fusion.h"
#include "kernels/product.h"
#include "kernels/shares.h"
#include "loader/checkpoint.h"
#include "loader/tensors.h"
#include "vlm/names.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  std::string model;
  std::map<std::string, std::string> options = {
      {"quantization", "none"}, {"rows", "1"}, {"past", "600"}, {"steps", "40"}};

  int64_t number(const std::string& name) const { return std::atoll(options.at(name).c_str()); }
};

[[noreturn]] void fail(const std::string& why) {
  std::cerr << "step_bench: " << why << "\n";
  std::exit(1);
}

Settings read_settings(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      settings.model = word;
    } else if (i + 1 == argc || !settings.options.contains(word.substr(2))) {
      fail("no such option, or no value: " + word);
    } else {
      settings.options[word.substr(2)] = argv[++i];
    }
  }
  if (settings.model.empty()) fail("MODEL is missing");
  if (settings.number("steps") < 1) fail("--steps is 1 or more");
  return settings;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One pass over memory beyond the caches: bytes a second.
class Reader {
 public:
  Reader() : memory_(pages_.take({kBytes}, at::kByte)) { memory_.fill_(1); }

  double rate() const {
    constexpr int64_t kWords = 4096;
    const auto* words = static_cast<const uint64_t*>(memory_.const_data_ptr());
    std::atomic<uint64_t> total = 0;
    const Clock::time_point start = Clock::now();
    vlm::Shares shares(kBytes / 8 / kWords, 8);
    shares.each([&](int64_t i) { total += bench::sum_words(words + i * kWords, kWords); });
    return total == 0 ? 0 : static_cast<double>(kBytes) / seconds_since(start);
  }

 private:
  static constexpr int64_t kBytes = int64_t{1} << 28;
  vlm::HugeMemory pages_;
  at::Tensor memory_;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(const Settings& settings, const vlm::Checkpoint& checkpoint, vlm::TensorSource& source,
        std::optional<vlm::Packing> packing)
      : config_(checkpoint.config()),
        past_(settings.number("past")),
        steps_(settings.number("steps")),
        decoder_(config_.text, source, at::kCPU, packing),
        work_(bench::work_of(config_, 2, packing ? std::optional(packing->format) : std::nullopt)) {
    for (vlm::Linear* matrix : decoder_.matrices()) matrix->move_weights(pages_);
  }

  nlohmann::json measure(int64_t rows) {
    const int64_t length = past_ + 1;
    vlm::KvCache cache(config_.text, rows * length, at::TensorOptions().dtype(at::kBFloat16));
    for (int64_t i = 0; i < config_.text.layers; ++i) {
      cache.keys(i).normal_();
      cache.values(i).normal_();
    }
    vlm::StepBuffers buffers(rows, length, at::kCPU);
    fill(buffers, rows, length);
    const auto step = vlm::CpuStep::make(decoder_, cache, buffers);
    const bool has_step = step != nullptr && step->takes(rows);
    bytes_ = static_cast<double>(work_.token_bytes + rows * length * work_.slot_bytes);
    Times general, own;
    for (int64_t i = -2; i < steps_; ++i) {
      time(i >= 0, general, [&] { general_step(buffers, cache); });
      if (has_step) time(i >= 0, own, [&] { step->run(); });
    }
    nlohmann::json report = {{"rows", rows}, {"general", general.report()}};
    if (has_step) report["step"] = own.report();
    return report;
  }

 private:
  struct Times {
    std::vector<double> seconds, shares;

    nlohmann::json report() const {
      return {{"best_ms", *std::min_element(seconds.begin(), seconds.end()) * 1e3},
              {"median_ms", median(seconds) * 1e3},
              {"of_read_rate", median(shares)}};
    }
  };

  static void fill(vlm::StepBuffers& buffers, int64_t rows, int64_t length) {
    std::vector<std::vector<int32_t>> slots(static_cast<size_t>(rows));
    std::vector<vlm::DecodePart> parts;
    for (int64_t row = 0; row < rows; ++row) {
      std::vector<int32_t>& own = slots[static_cast<size_t>(row)];
      for (int64_t i = 0; i < length; ++i) own.push_back(static_cast<int32_t>(row * length + i));
      parts.push_back({row, &own});
    }
    buffers.fill(parts);
  }

  template <typename Step>
  void time(bool counts, Times& times, const Step& step) const {
    const Clock::time_point start = Clock::now();
    step();
    const double took = seconds_since(start);
    const double share = bytes_ / took / reader_.rate();
    if (!counts) return;
    times.seconds.push_back(took);
    times.shares.push_back(share);
  }

  void general_step(const vlm::StepBuffers& buffers, vlm::KvCache& cache) const {
    vlm::DecoderBatch batch;
    batch.positions = buffers.positions();
    batch.lengths = buffers.lengths();
    batch.slots = buffers.slots();
    batch.cached = buffers.cached();
    batch.logit_rows = at::arange(buffers.rows(), at::kLong);
    decoder_.forward(vlm::fuse(decoder_.embedding_table(), buffers.ids(), {}), batch, cache);
  }

  const vlm::ModelConfig& config_;
  int64_t past_, steps_;
  vlm::HugeMemory pages_;
  vlm::Decoder decoder_;
  bench::Work work_;
  Reader reader_;
  double bytes_ = 0;  // that a step reads
};

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = read_settings(argc, argv);
  const c10::InferenceMode guard;
  vlm::ModelSpec spec;
  spec.model = settings.model;
  const auto checkpoint = vlm::Checkpoint::open(spec);
  if (!checkpoint) fail(checkpoint.error().message);
  std::optional<vlm::Packing> packing;
  const std::string& quantization = settings.options.at("quantization");
  if (quantization == "int8") {
    packing = {vlm::PackedFormat::kInt8};
  } else if (quantization == "int4") {
    packing = {vlm::PackedFormat::kInt4};
  } else if (quantization == "w4a8") {
    packing = {vlm::PackedFormat::kInt4, vlm::gains_by_bytes()};
  } else if (quantization != "none") {
    fail("--quantization is none, int8, int4 or w4a8");
  }
  vlm::TensorSource source((*checkpoint)->weights(), at::kCPU, at::kBFloat16, {}, {});
  Bench bench(settings, **checkpoint, source, packing);
  nlohmann::json report = nlohmann::json::array();
  const std::string& rows = settings.options.at("rows");
  for (size_t at = 0; at < rows.size();) {
    const size_t comma = std::min(rows.find(',', at), rows.size());
    const int64_t count = std::atoll(rows.substr(at, comma - at).c_str());
    if (count < 1) fail("--rows are numbers of 1 or more");
    report.push_back(bench.measure(count));
    at = comma + 1;
  }
  std::cout << report.dump(1) << "\n";
}
