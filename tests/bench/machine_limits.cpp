// SPDX-License-Identifier: LGPL-2.1-or-later
#include "bench/machine_limits.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
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

nlohmann::json measure_gpu_limits(const std::string& device) {
  const auto options = at::TensorOptions().device(at::Device(device)).dtype(at::kBFloat16);
  // What a computed number waits for is done.
  const auto wait = [](const at::Tensor& last) { last.flatten()[0].item(); };
  constexpr int kTimes = 10;
  const auto seconds = [&](auto work) {
    return best_seconds(3,
                        [&] {
                          at::Tensor last;
                          for (int i = 0; i < kTimes; ++i) last = work();
                          wait(last);
                        }) /
           kTimes;
  };
  constexpr int64_t kSize = 8192;
  const at::Tensor a = at::randn({kSize, kSize}, options), b = at::randn({kSize, kSize}, options);
  const at::Tensor large = at::randn({int64_t{1} << 29}, options.dtype(at::kFloat));
  const at::Tensor to = at::empty_like(large);
  const auto bytes = static_cast<double>(large.nbytes());
  return {
      {"read_gb_s", bytes / seconds([&] { return large.sum(); }) / 1e9},
      {"copy_gb_s", 2 * bytes / seconds([&] { return to.copy_(large); }) / 1e9},
      {"matmul_gflops", 2.0 * kSize * kSize * kSize / seconds([&] { return at::mm(a, b); }) / 1e9}};
}

nlohmann::json measure_limits() {
  return {{"threads", at::get_num_threads()},
          {"read_gb_s", read_gb_s()},
          {"matmul_gflops", matmul_gflops()}};
}

}  // namespace bench
