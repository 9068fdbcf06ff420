// SPDX-License-Identifier: LGPL-2.1-or-later
#include "bench/machine_limits.h"

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

template <typename Work>
double best_seconds(int tries, Work work) {
  double best = 1e300;
  for (int i = 0; i < tries; ++i) {
    const Clock::time_point start = Clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// Several sums at a time, so that reading alone limits it.
uint64_t sum(const uint64_t* values, int64_t count) {
  uint64_t sums[32] = {};
  for (int64_t i = 0; i < count; i += 32) {
    for (int64_t k = 0; k < 32; ++k) sums[k] += values[i + k];
  }
  uint64_t total = 0;
  for (const uint64_t part : sums) total += part;
  return total;
}

double read_gb_s() {
  constexpr int64_t kCount = int64_t{1} << 27;  // 1 GiB
  const std::vector<uint64_t> values(kCount, 1);
  std::atomic<uint64_t> total = 0;
  const double seconds = best_seconds(5, [&] {
    at::parallel_for(0, kCount / 32, 1, [&](int64_t begin, int64_t end) {
      total += sum(values.data() + begin * 32, (end - begin) * 32);
    });
  });
  return total > 0 ? static_cast<double>(kCount) * 8 / seconds / 1e9 : 0;
}

double matmul_gflops() {
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::randn({kSize, kSize}), b = at::randn({kSize, kSize});
  const double seconds = best_seconds(5, [&] { at::mm(a, b); });
  return 2.0 * kSize * kSize * kSize / seconds / 1e9;
}

}  // namespace

nlohmann::json measure_limits() {
  return {{"threads", at::get_num_threads()},
          {"read_gb_s", read_gb_s()},
          {"matmul_gflops", matmul_gflops()}};
}

}  // namespace bench
