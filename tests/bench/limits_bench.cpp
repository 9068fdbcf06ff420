// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures what this machine's CPU, with as many threads as OMP_NUM_THREADS says, or a GPU reaches,
// and prints it as one JSON object: `read_gb_s`, reading memory, and `matmul_gflops`, products of
// large matrices by type (`int8`: only where the processor has instructions for it; GPU: bfloat16
// alone). Given a checkpoint, also what its model asks for, in numbers and operations (`work`).
//
//   limits_bench [MODEL] [--device D] [--read-only]
//
// --read-only: nothing but `read_gb_s`, on the CPU in half a second.

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/device.h"
#include "bench/machine_limits.h"
#include "bench/work.h"
#include "loader/checkpoint.h"

namespace {

nlohmann::json work_of(const std::string& model) {
  vlm::ModelSpec spec;
  spec.model = model;
  const auto checkpoint = vlm::Checkpoint::open(spec);
  if (!checkpoint) {
    std::cerr << "limits_bench: " << checkpoint.error().message << "\n";
    std::exit(1);
  }
  const bench::Work work = bench::work_of((*checkpoint)->config(), 2, std::nullopt);
  return {{"picture_operations", work.picture_operations},
          {"prompt_token_operations", work.prompt_token_operations},
          {"head_operations", work.head_operations},
          {"token_parameters", work.token_parameters}};
}

void measure_cpu(nlohmann::json& report, bool read_only) {
  report["threads"] = at::get_num_threads();
  report["read_gb_s"] = bench::read_gb_s();
  if (read_only) return;
  for (const auto& [name, type] :
       {std::pair("float32", at::kFloat), std::pair("bfloat16", at::kBFloat16),
        std::pair("int8", at::kChar)}) {
    if (const auto reached = bench::matmul_gflops(type)) report["matmul_gflops"][name] = *reached;
  }
}

void measure_gpu(nlohmann::json& report, const std::string& device) {
  const nlohmann::json limits = bench::measure_gpu_limits(vlm::resolve_device(device).str());
  report["read_gb_s"] =
      std::max(limits["read_gb_s"].get<double>(), limits["copy_gb_s"].get<double>());
  report["matmul_gflops"]["bfloat16"] = limits["matmul_gflops"];
}

}  // namespace

int main(int argc, char** argv) {
  bool read_only = false;
  std::string device = "cpu";
  nlohmann::json report;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--read-only") {
      read_only = true;
    } else if (word == "--device" && i + 1 < argc) {
      device = argv[++i];
    } else if (word.rfind('-', 0) != 0) {
      report["work"] = work_of(word);
    } else {
      std::cout << "limits_bench [MODEL] [--device D] [--read-only]: read rate and products\n";
      return word == "--help" || word == "-h" ? 0 : 2;
    }
  }
  if (device == "cpu") {
    measure_cpu(report, read_only);
  } else {
    measure_gpu(report, device);
  }
  std::cout << report.dump() << std::endl;
}
