// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmstats.h"

#include <algorithm>

namespace gstvlm {
namespace {

constexpr size_t kLatencies = 1024;
constexpr double kPercentile = 0.95;

uint64_t percentile(std::vector<uint64_t> values) {
  if (values.empty()) {
    return 0;
  }
  const auto at = static_cast<std::ptrdiff_t>(kPercentile * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

}  // namespace

void Stats::reset() {
  const Lock lock(mutex_);
  frames_ = failed_ = described_ = tokens_ = latency_max_ns_ = 0;
  seconds_ = latency_sum_ns_ = 0;
  latencies_ns_.clear();
}

void Stats::count_frame() {
  const Lock lock(mutex_);
  ++frames_;
}

void Stats::count_failed() {
  const Lock lock(mutex_);
  ++failed_;
}

void Stats::count_described(const vlm::Description& description, uint64_t latency_ns) {
  const Lock lock(mutex_);
  if (latencies_ns_.size() < kLatencies) {
    latencies_ns_.push_back(latency_ns);
  } else {
    latencies_ns_[described_ % kLatencies] = latency_ns;
  }
  ++described_;
  tokens_ += description.token_ids.size();
  seconds_ += (description.timing.prefill_ms + description.timing.decode_ms) / 1000;
  latency_sum_ns_ += static_cast<double>(latency_ns);
  latency_max_ns_ = std::max(latency_max_ns_, latency_ns);
}

StructurePtr Stats::snapshot(const Counts& counts) const {
  const Lock lock(mutex_);
  const double mean = described_ == 0 ? 0 : latency_sum_ns_ / static_cast<double>(described_);
  const double rate = seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0;
  return StructurePtr(gst_structure_new(
      "vlm-stats", "frames", G_TYPE_UINT64, frames_, "windows", G_TYPE_UINT64, counts.windows,
      "described", G_TYPE_UINT64, described_, "passed-over", G_TYPE_UINT64, counts.passed_over,
      "failed", G_TYPE_UINT64, failed_, "waiting", G_TYPE_UINT64, counts.waiting, "latency-mean",
      G_TYPE_UINT64, static_cast<uint64_t>(mean), "latency-p95", G_TYPE_UINT64,
      percentile(latencies_ns_), "latency-max", G_TYPE_UINT64, latency_max_ns_, "tokens-per-second",
      G_TYPE_DOUBLE, rate, nullptr));
}

}  // namespace gstvlm
