// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures the product of few rows with a large matrix of each format, as a share of what reading
// the same memory costs on the same threads. Prints a table.
//
//   matvec_bench [OUTPUTS INPUTS]

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include "bench/machine_limits.h"
#include "kernels/packed_matrix.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBytes = int64_t{1} << 30;  // of all matrices together: beyond every cache

struct Memory {
  explicit Memory(bool huge) {
    data = static_cast<std::byte*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (data == MAP_FAILED) std::abort();
    madvise(data, kBytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    std::mt19937_64 random(1);
    auto* words = reinterpret_cast<uint64_t*>(data);
    // Small numbers in every format.
    for (int64_t i = 0; i < kBytes / 8; ++i) words[i] = random() & 0xBCFFBCFFBCFFBCFFu;
  }
  ~Memory() { munmap(data, kBytes); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::byte* data;
};

double best_gb_s(const Memory& memory, const vlm::PackedShape& shape, int64_t rows) {
  const std::vector<float> x(static_cast<size_t>(rows * shape.inputs), 0.5F);
  std::vector<float> y(static_cast<size_t>(rows * shape.outputs));
  const int64_t count = kBytes / shape.bytes();
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const Clock::time_point start = Clock::now();
    for (int64_t i = 0; i < count; ++i) {
      vlm::matvec_cpu({shape, memory.data + i * shape.bytes(), x.data(), y.data(), rows});
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(count * shape.bytes()) / seconds / 1e9);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t outputs = argc > 2 ? std::atoll(argv[1]) : 5632;
  const int64_t inputs = argc > 2 ? std::atoll(argv[2]) : 2048;
  const nlohmann::json limits = bench::measure_limits();
  const double read = limits["read_gb_s"];
  std::printf("%d threads read %.1f GB/s\n", limits["threads"].get<int>(), read);
  for (const bool huge : {false, true}) {
    const Memory memory(huge);
    for (const auto& [name, format] : {std::pair("bfloat16", vlm::PackedFormat::kBFloat16),
                                       std::pair("int8", vlm::PackedFormat::kInt8),
                                       std::pair("int4", vlm::PackedFormat::kInt4)}) {
      for (const int64_t rows : {1, 2, 4, 8, 16, 32}) {
        const double rate = best_gb_s(memory, {format, outputs, inputs}, rows);
        std::printf("%s %-8s %2d rows %6.1f GB/s %.2f\n", huge ? "huge" : "4 KiB", name,
                    static_cast<int>(rows), rate, rate / read);
      }
    }
  }
}
