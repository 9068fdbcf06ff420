// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures products of bfloat16 with a matrix of each format, with the instructions of each kind of
// processor that runs here, beside libtorch's own of bfloat16, in turn. Prints a table: GFLOP/s of
// the best of several, and as a multiple of libtorch's.
//
//   product_bench [OUTPUTS INPUTS]

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/reused_memory.h"
#include "kernels/packed_matrix.h"
#include "kernels/product.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBytes = int64_t{1} << 28;  // of all matrices of one format: beyond most caches
constexpr int kRounds = 3;

struct Way {
  std::string name;
  std::function<void(int64_t copy)> run;
};

std::vector<at::Tensor> packed_copies(const vlm::PackedShape& shape, const at::Tensor& weights) {
  std::vector<at::Tensor> copies;
  for (int64_t bytes = 0; copies.empty() || bytes < kBytes; bytes += shape.bytes()) {
    copies.push_back(at::empty({shape.bytes()}, at::kByte));
    auto* to = static_cast<std::byte*>(copies.back().mutable_data_ptr());
    if (copies.size() == 1) {
      vlm::pack_rows(shape, weights.const_data_ptr<float>(), shape.outputs, to);
    } else {
      copies.back().copy_(copies.front());
    }
  }
  return copies;
}

// Seconds of each way, the best of all copies and rounds.
std::vector<double> best_seconds(const std::vector<Way>& ways, int64_t copies) {
  std::vector<double> best(ways.size(), 1e9);
  for (int64_t run = 0; run < kRounds * copies; ++run) {
    for (size_t i = 0; i < ways.size(); ++i) {
      const Clock::time_point start = Clock::now();
      ways[i].run(run % copies);
      best[i] = std::min(best[i], std::chrono::duration<double>(Clock::now() - start).count());
    }
  }
  return best;
}

void measure(const char* name, const vlm::PackedShape& shape, int64_t rows,
             const std::vector<at::Tensor>& packed, const std::vector<at::Tensor>& plain) {
  const at::Tensor x = at::randn({rows, shape.inputs}).to(at::kBFloat16);
  const at::Tensor y = at::empty({rows, shape.outputs}, x.options());
  const auto copies = static_cast<int64_t>(plain.size());
  std::vector<Way> ways = {{"libtorch", [&](int64_t copy) {
                              at::linear(x, plain[copy].view({shape.outputs, shape.inputs}));
                            }}};
  std::vector<vlm::ProductFamily> families = vlm::product_families();
  const vlm::ProductFamily* bytes = vlm::byte_products();
  const bool more = bytes != nullptr && bytes->product != families.front().product;
  if (more && shape.format != vlm::PackedFormat::kBFloat16) families.push_back(*bytes);
  for (const vlm::ProductFamily& family : families) {
    ways.push_back({family.name, [&](int64_t copy) {
                      const auto& weights = packed[static_cast<size_t>(copy) % packed.size()];
                      family.product(
                          {{shape, static_cast<const std::byte*>(weights.const_data_ptr()),
                            static_cast<const uint16_t*>(x.const_data_ptr()), nullptr,
                            static_cast<uint16_t*>(y.mutable_data_ptr()), rows}});
                    }});
  }
  const std::vector<double> best = best_seconds(ways, copies);
  const auto operations = static_cast<double>(2 * shape.outputs * shape.inputs * rows);
  std::printf("%-8s %4d rows", name, static_cast<int>(rows));
  for (size_t i = 0; i < ways.size(); ++i) {
    std::printf("  %s %6.0f %.2f", ways[i].name.c_str(), operations / best[i] / 1e9,
                best[0] / best[i]);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const c10::InferenceMode inference;
  const vlm::ReusedMemory memory;
  const int64_t outputs = argc > 2 ? std::atoll(argv[1]) : 5632;
  const int64_t inputs = argc > 2 ? std::atoll(argv[2]) : 2048;
  std::printf("%d threads, %d x %d; GFLOP/s, and as a multiple of libtorch's bfloat16 product\n",
              at::get_num_threads(), static_cast<int>(outputs), static_cast<int>(inputs));
  const at::Tensor weights = at::randn({outputs, inputs}) / 16;
  std::vector<at::Tensor> plain;
  for (int64_t bytes = 0; plain.empty() || bytes < kBytes; bytes += outputs * inputs * 2) {
    plain.push_back(weights.to(at::kBFloat16));
  }
  for (const auto& [name, format] :
       {std::pair("bfloat16", vlm::PackedFormat::kBFloat16),
        std::pair("int8", vlm::PackedFormat::kInt8), std::pair("int4", vlm::PackedFormat::kInt4)}) {
    const vlm::PackedShape shape = {format, outputs, inputs};
    const std::vector<at::Tensor> packed = packed_copies(shape, weights);
    for (const int64_t rows : {1, 8, 16, 64, 128, 256, 600}) {
      measure(name, shape, rows, packed, plain);
    }
  }
}
