// SPDX-License-Identifier: LGPL-2.1-or-later
#include "bench/machine_limits.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/huge_memory.h"
#include "kernels/cpu.h"
#include "kernels/packed_matrix.h"
#include "kernels/product.h"

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

// Of at least two tries, which end early where they take long.
template <typename Work>
double best_seconds(int tries, Work work) {
  double best = 1e300, all = 0;
  for (int i = 0; i < tries && (i < 2 || all < 1); ++i) {
    const Clock::time_point start = Clock::now();
    work();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, took);
    all += took;
  }
  return best;
}

// Of [kSize, kSize] times its like: libtorch's way and each of ours.
constexpr int64_t kSize = 2048;

std::vector<std::function<void()>> ways_to_multiply(at::ScalarType type) {
  const auto numbers = at::TensorOptions().dtype(type == at::kChar ? at::kBFloat16 : type);
  const at::Tensor a = at::randn({kSize, kSize}).to(numbers), b = at::empty_like(a).copy_(a);
  const at::Tensor c = at::empty_like(a);
  std::vector<std::function<void()>> ways;
  if (type != at::kChar) ways.emplace_back([=] { at::linear(a, b); });
  const auto add = [&](const vlm::ProductFamily& family, vlm::PackedFormat format) {
    const vlm::PackedShape shape = {format, kSize, kSize};
    const at::Tensor packed = at::empty({shape.bytes()}, at::kByte);
    vlm::pack_rows(shape, b.to(at::kFloat).const_data_ptr<float>(), kSize,
                   static_cast<std::byte*>(packed.mutable_data_ptr()));
    ways.emplace_back([=] {
      family.product({{shape, static_cast<const std::byte*>(packed.const_data_ptr()),
                       static_cast<const uint16_t*>(a.const_data_ptr()), nullptr,
                       static_cast<uint16_t*>(c.mutable_data_ptr()), kSize}});
    });
  };
  if (type == at::kBFloat16) {
    for (const auto& family : vlm::product_families()) add(family, vlm::PackedFormat::kBFloat16);
  }
  if (type == at::kChar && vlm::byte_products() != nullptr) {
    for (const auto format : {vlm::PackedFormat::kInt8, vlm::PackedFormat::kInt4}) {
      add(*vlm::byte_products(), format);
    }
  }
  return ways;
}

}  // namespace

uint64_t sum_words(const uint64_t* values, int64_t count) {
  uint64_t sums[32] = {};
  vlm::with_vectors([&]() VLM_INLINE {
    for (int64_t i = 0; i < count; i += 32) {
      for (int64_t k = 0; k < 32; ++k) sums[k] += values[i + k];
    }
  });
  uint64_t total = 0;
  for (const uint64_t part : sums) total += part;
  return total;
}

double read_gb_s(int64_t mib) {
  vlm::HugeMemory memory;
  const at::Tensor values = memory.take({mib << 20}, at::kByte).fill_(1);
  const auto* words = static_cast<const uint64_t*>(values.const_data_ptr());
  constexpr int64_t kPart = 512;  // words that one thread takes at a time at least
  std::atomic<uint64_t> total = 0;
  const double seconds = best_seconds(6, [&] {
    at::parallel_for(0, values.numel() / 8 / kPart, 1, [&](int64_t begin, int64_t end) {
      total += sum_words(words + begin * kPart, (end - begin) * kPart);
    });
  });
  return total > 0 ? static_cast<double>(values.numel()) / seconds / 1e9 : 0;
}

std::optional<double> matmul_gflops(at::ScalarType type) {
  const c10::InferenceMode inference;
  double best = 0;
  for (const auto& way : ways_to_multiply(type)) {
    best = std::max(best, 2.0 * kSize * kSize * kSize / best_seconds(6, way) / 1e9);
  }
  return best > 0 ? std::optional(best) : std::nullopt;
}

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
  constexpr int64_t kLarge = 8192;
  const at::Tensor a = at::randn({kLarge, kLarge}, options),
                   b = at::randn({kLarge, kLarge}, options);
  const at::Tensor large = at::randn({int64_t{1} << 29}, options.dtype(at::kFloat));
  const at::Tensor to = at::empty_like(large);
  const auto bytes = static_cast<double>(large.nbytes());
  return {{"read_gb_s", bytes / seconds([&] { return large.sum(); }) / 1e9},
          {"copy_gb_s", 2 * bytes / seconds([&] { return to.copy_(large); }) / 1e9},
          {"matmul_gflops",
           2.0 * kLarge * kLarge * kLarge / seconds([&] { return at::mm(a, b); }) / 1e9}};
}

}  // namespace bench
