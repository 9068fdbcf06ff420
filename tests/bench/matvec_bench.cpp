// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures the product of few rows with a large matrix of each format, with the instructions of
// each kind of processor that runs here, beside what reading the same memory costs on the same
// threads. Prints a table.
//
//   matvec_bench [OUTPUTS INPUTS]

#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <tuple>
#include <vector>

#include "bench/machine_limits.h"
#include "kernels/packed_matrix.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBytes = int64_t{1} << 29;  // of all matrices together: beyond every cache
constexpr int kRounds = 5;

struct Memory {
  explicit Memory(bool huge) {
    data = static_cast<std::byte*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (data == MAP_FAILED) std::abort();
    madvise(data, kBytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    std::mt19937_64 random(1);
    auto* words = reinterpret_cast<uint64_t*>(data);
    // Small numbers in every format, and none too small to be normal.
    for (int64_t i = 0; i < kBytes / 8; ++i) {
      words[i] = (random() & 0x80FF80FF80FF80FFu) | 0x3C003C003C003C00u;
    }
  }
  ~Memory() { munmap(data, kBytes); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::byte* data;
};

// The best rate of `work(first byte)` over parts of the memory, each too short for the machine's
// other work to meet all of them.
template <typename Work>
double best_gb_s(const Memory& memory, int64_t part, const Work& work) {
  double best = 0;
  for (int64_t i = 0; i + part <= kBytes; i += part) {
    const Clock::time_point start = Clock::now();
    work(memory.data + i);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(part) / seconds / 1e9);
  }
  return best;
}

double read_gb_s(const Memory& memory) {
  constexpr int64_t kPart = int64_t{1} << 24, kWords = 512;
  std::atomic<uint64_t> total = 0;
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    best = std::max(best, best_gb_s(memory, kPart, [&](const std::byte* from) {
                      at::parallel_for(0, kPart / kWords / 8, 1, [&](int64_t begin, int64_t end) {
                        const auto* words = reinterpret_cast<const uint64_t*>(from);
                        total += bench::sum_words(words + begin * kWords, (end - begin) * kWords);
                      });
                    }));
  }
  return total > 0 ? best : 0;
}

// The families in turn, so that what else the machine does meets all of them.
std::vector<double> product_gb_s(const Memory& memory, const vlm::PackedShape& shape, int64_t rows,
                                 bool in_bytes, const std::vector<vlm::MatVecFamily>& families) {
  const std::vector<float> x(static_cast<size_t>(rows * shape.inputs), 0.5F);
  std::vector<float> y(static_cast<size_t>(rows * shape.outputs));
  std::vector<double> best(families.size(), 0);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < families.size(); ++i) {
      best[i] =
          std::max(best[i], best_gb_s(memory, shape.bytes(), [&](const std::byte* weights) {
                     families[i].product({shape, weights, x.data(), y.data(), rows, in_bytes});
                   }));
    }
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t outputs = argc > 2 ? std::atoll(argv[1]) : 5632;
  const int64_t inputs = argc > 2 ? std::atoll(argv[2]) : 2048;
  std::vector<vlm::MatVecFamily> families = vlm::matvec_families();
  if (families.size() > 1) families.pop_back();  // the portable one, of which no speed is asked
  std::printf("%d threads; GB/s, and as a share of reading alone\n", at::get_num_threads());
  for (const bool huge : {false, true}) {
    const Memory memory(huge);
    const double read = read_gb_s(memory);
    const char* pages = huge ? "huge" : "4 KiB";
    std::printf("%s pages, reading alone: %.1f\n", pages, read);
    for (const auto& [name, format, in_bytes] :
         {std::tuple("bfloat16", vlm::PackedFormat::kBFloat16, false),
          std::tuple("int8", vlm::PackedFormat::kInt8, false),
          std::tuple("int4", vlm::PackedFormat::kInt4, false),
          std::tuple("w4a8", vlm::PackedFormat::kInt4, true)}) {
      for (const int64_t rows : {1, 2, 4, 6, 8, 12, 16, 24, 32, 64}) {
        std::printf("%s %-8s %2d rows", pages, name, static_cast<int>(rows));
        const auto rates =
            product_gb_s(memory, {format, outputs, inputs}, rows, in_bytes, families);
        for (size_t i = 0; i < families.size(); ++i) {
          std::printf("  %s %5.1f %.2f", families[i].name, rates[i], rates[i] / read);
        }
        std::printf("\n");
        std::fflush(stdout);
      }
    }
  }
}
