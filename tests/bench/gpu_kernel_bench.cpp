// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures the GPU module's kernels: choices and the step's bookkeeping in microseconds, the rest
// as a share of the memory's read rate. Each figure is a CUDA graph of many calls; products and
// attention go over more weights, or a larger cache, than any cache on the GPU holds, the small
// kernels over what lies in one, as in a step. Prints a table. Exits with 77 where there is no GPU.
//
//   gpu_kernel_bench [HIDDEN INNER HEADS KV_HEADS]

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/device.h"
#include "bench/gpu_bench.h"
#include "bench/machine_limits.h"
#include "cuda/packed_index.h"
#include "cuda/tensor_ops.h"
#include "decoder/sample_table.h"

namespace bench {

using Clock = std::chrono::steady_clock;

double seconds(const Gpu& gpu, int calls, const std::function<void(int)>& work) {
  for (int i = 0; i < std::min(calls, 2); ++i) work(i);
  gpu.module.synchronize(gpu.queue());
  if (!gpu.module.begin_capture(gpu.queue())) std::abort();
  for (int i = 0; i < calls; ++i) work(i);
  void* graph = gpu.module.end_capture(gpu.queue());
  if (graph == nullptr) std::abort();
  double best = 1e300;
  for (int round = 0; round < 4; ++round) {
    const Clock::time_point start = Clock::now();
    gpu.module.launch_graph(graph, gpu.queue());
    if (!gpu.module.synchronize(gpu.queue())) std::abort();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  gpu.module.destroy_graph(graph);
  return best / calls;
}

void print(const char* what, int64_t rows, double bytes, double time, double read) {
  std::printf("%-28s %3d rows %8.1f us %7.0f GB/s %.2f\n", what, static_cast<int>(rows), time * 1e6,
              bytes / time / 1e9, bytes / time / 1e9 / read);
}

}  // namespace bench

namespace {

using namespace bench;
using namespace vlm;

struct Product {
  std::string name;
  int64_t outputs, inputs;
  MatVecOutput output;
};

void measure_product(const Gpu& gpu, const Product& p, std::optional<PackedFormat> format,
                     double read) {
  const int64_t row_bytes = format ? gpu_row_bytes(*format, p.inputs) : p.inputs * 2;
  const int64_t scale_bytes = format ? gpu_scale_bytes(*format, p.inputs) : 0;
  const auto bytes = static_cast<double>(p.outputs * (row_bytes + scale_bytes));
  const int copies = static_cast<int>(std::max(2.0, 1.5e9 / bytes));
  const auto byte_options = gpu.half.dtype(at::kByte);
  const at::Tensor weights = format ? at::randint(256, {copies, p.outputs, row_bytes}, byte_options)
                                    : at::randn({copies, p.outputs, p.inputs}, gpu.half);
  const at::Tensor scales =
      at::full({copies, p.outputs, std::max<int64_t>(scale_bytes, 1)}, 0x3C, byte_options);
  for (const int64_t rows : {1, 2, 4, 8, 16, 32}) {
    const at::Tensor x = at::randn({rows, p.inputs}, gpu.half),
                     norm = at::randn({p.inputs}, gpu.half);
    const at::Tensor out = at::zeros({rows, p.outputs}, gpu.half);
    GpuMatVecArgs args;
    args.matrix.outputs = p.outputs;
    args.matrix.inputs = p.inputs;
    args.matrix.packed = format.has_value();
    args.matrix.format = format.value_or(PackedFormat::kBFloat16);
    args.x = x.const_data_ptr();
    args.out = out.mutable_data_ptr();
    args.rows = rows;
    args.output = p.output;
    args.type = KernelType::kBFloat16;
    const auto run = [&](int i) {
      args.matrix.weights = weights[i % copies].const_data_ptr();
      args.matrix.scales = scales[i % copies].const_data_ptr();
      if (!gpu.module.matvec(args, gpu.queue())) std::abort();
    };
    const std::string kind = !format ? " bf16" : *format == PackedFormat::kInt8 ? " int8" : " int4";
    const double plain = seconds(gpu, copies, run);
    print((p.name + kind).c_str(), rows, bytes, plain, read);
    if (rows <= kNormRowsOnGpu && p.inputs <= 8192) {
      args.norm_weight = norm.const_data_ptr();
      print((p.name + kind + " +norm").c_str(), rows, bytes, seconds(gpu, copies, run), read);
    }
    if (!format && rows >= 4) {
      at::Tensor result = out;
      const double libtorch =
          seconds(gpu, copies, [&](int i) { at::mm_out(result, x, weights[i % copies].t()); });
      print((p.name + " libtorch").c_str(), rows, bytes, libtorch, read);
    }
  }
}

void measure_attention(const Gpu& gpu, int64_t heads, int64_t kv_heads, double read) {
  constexpr int64_t kDim = 128;
  for (const int64_t rows : {1, 8, 64}) {
    for (const int64_t length : {700, 4000}) {
      const int64_t slots = rows * length;
      const auto bytes = static_cast<double>(2 * slots * kv_heads * kDim * 2);
      const int layers = static_cast<int>(std::clamp(2e9 / bytes, 1.0, 40.0));
      const at::Tensor keys = at::randn({layers, slots, kv_heads, kDim}, gpu.half);
      const at::Tensor values = at::randn({layers, slots, kv_heads, kDim}, gpu.half);
      const at::Tensor q = at::randn({rows, heads, kDim}, gpu.half),
                       out = at::empty({rows, heads, kDim}, gpu.half);
      const at::Tensor table = at::arange(slots, gpu.half.dtype(at::kInt));
      const at::Tensor lengths = at::full({rows}, length, gpu.half.dtype(at::kInt));
      const at::Tensor arrivals = at::zeros({rows * heads}, gpu.half.dtype(at::kInt));
      PagedAttentionArgs base;
      base.q = q.const_data_ptr();
      base.out = out.mutable_data_ptr();
      base.slot_table = table.const_data_ptr<int32_t>();
      base.table_stride = length;
      base.lengths = lengths.const_data_ptr<int32_t>();
      base.rows = rows;
      base.heads = heads;
      base.kv_heads = kv_heads;
      base.head_dim = kDim;
      base.scale = 0.1f;
      base.type = KernelType::kBFloat16;
      const double whole = seconds(gpu, std::max(layers, 8), [&](int i) {
        base.k_cache = keys[i % layers].const_data_ptr();
        base.v_cache = values[i % layers].const_data_ptr();
        if (!gpu.module.paged_attention(base, gpu.queue())) std::abort();
      });
      print(("attention " + std::to_string(length) + " paged").c_str(), rows, bytes, whole, read);
      for (const int64_t splits : {1, 2, 4, 8, 16, 32}) {
        SplitAttentionArgs args;
        args.base = base;
        args.splits = splits;
        const at::Tensor partials = at::empty({args.floats()}, gpu.half.dtype(at::kFloat));
        args.partials = partials.mutable_data_ptr<float>();
        args.arrivals = arrivals.mutable_data_ptr<int32_t>();
        const double time = seconds(gpu, std::max(layers, 8), [&](int i) {
          args.base.k_cache = keys[i % layers].const_data_ptr();
          args.base.v_cache = values[i % layers].const_data_ptr();
          if (!gpu.module.split_attention(args, gpu.queue())) std::abort();
        });
        const std::string name =
            "attention " + std::to_string(length) + " in " + std::to_string(splits);
        print(name.c_str(), rows, bytes, time, read);
      }
    }
  }
}

struct Way {
  std::string name;
  Choice choice;
};

std::vector<Way> ways_to_choose() {
  std::vector<Way> ways(5);
  ways[0].name = "penalised";
  ways[0].choice.repetition_penalty = 1.1;
  for (size_t i = 1; i < ways.size(); ++i) ways[i].choice.sample = true;
  ways[1].name = "drawn";
  ways[2].name = "drawn, top-k 50";
  ways[2].choice.top_k = 50;
  ways[3].name = "drawn, top-p 0.9";
  ways[3].choice.top_p = 0.9;
  ways[4].name = "drawn, both, penalised";
  ways[4].choice = ways[2].choice;
  ways[4].choice.top_p = 0.9;
  ways[4].choice.repetition_penalty = 1.1;
  return ways;
}

// One step's choices, as the step's own kernel for likeliest tokens makes them, then in other ways.
void measure_choices(const Gpu& gpu, int64_t rows, int64_t vocab) {
  const at::Tensor logits = at::randn({rows, vocab}, gpu.half.dtype(at::kFloat)) * 3;
  const at::Tensor tokens = at::zeros({rows}, gpu.half.dtype(at::kLong));
  const at::Tensor logprobs = at::zeros({rows}, gpu.half.dtype(at::kFloat));
  const auto tell = [&](const std::string& way, const std::function<void(int)>& work) {
    std::printf("%-28s %3d rows of %6d %8.1f us\n", way.c_str(), static_cast<int>(rows),
                static_cast<int>(vocab), seconds(gpu, 20, work) * 1e6);
  };
  PickArgs pick;
  pick.logits = logits.const_data_ptr<float>();
  pick.tokens = tokens.mutable_data_ptr<int64_t>();
  pick.logprobs = logprobs.mutable_data_ptr<float>();
  pick.rows = rows;
  pick.vocab_size = vocab;
  tell("likeliest", [&](int) {
    if (!gpu.module.pick(pick, gpu.queue())) std::abort();
  });
  for (const Way& way : ways_to_choose()) {
    std::vector<Choice> choices(static_cast<size_t>(rows), way.choice);
    for (size_t row = 0; row < choices.size(); ++row) {
      choices[row].first_row = static_cast<int64_t>(row);
      choices[row].sequence = row;
    }
    SampleTable table(rows, vocab, gpu.device);
    if (!table.fill(choices, rows)) std::abort();
    SampleArgs args = table.sample_args();
    args.logits = pick.logits;
    args.tokens = pick.tokens;
    args.logprobs = pick.logprobs;
    args.rows = rows;
    tell(way.name, [&](int) {
      if (!gpu.module.sample(args, gpu.queue())) std::abort();
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (cuda_module() == nullptr) return 77;
  const auto number = [&](int index, int64_t otherwise) {
    return argc > index ? std::atoll(argv[index]) : otherwise;
  };
  const int64_t hidden = number(1, 4096), inner = number(2, 11008);
  const int64_t heads = number(3, 32), kv_heads = number(4, 32);
  const Gpu gpu;
  for (const int64_t vocab : {32064, 128256}) {
    for (const int64_t rows : {1, 16, 64, 256}) measure_choices(gpu, rows, vocab);
  }
  const nlohmann::json limits = bench::measure_gpu_limits("cuda:0");
  std::printf("%s\n", limits.dump().c_str());
  const double read =
      std::max(limits["read_gb_s"].get<double>(), limits["copy_gb_s"].get<double>());
  const int64_t qkv = (heads + 2 * kv_heads) * (hidden / heads);
  for (const auto format : {std::optional<PackedFormat>(), std::optional(PackedFormat::kInt8),
                            std::optional(PackedFormat::kInt4)}) {
    for (const Product& product : {Product{"qkv", qkv, hidden, MatVecOutput::kStore},
                                   Product{"o", hidden, hidden, MatVecOutput::kAdd},
                                   Product{"gate_up", 2 * inner, hidden, MatVecOutput::kGate},
                                   Product{"down", hidden, inner, MatVecOutput::kAdd}}) {
      measure_product(gpu, product, format, read);
    }
  }
  measure_attention(gpu, heads, kv_heads, read);
  measure_elementwise(gpu, hidden, inner, heads, kv_heads, read);
  measure_packing(gpu, inner, hidden, read);
  measure_pictures(gpu, read);
}
