// SPDX-License-Identifier: LGPL-2.1-or-later

// Measures what this machine's CPU reaches, with as many threads as OMP_NUM_THREADS says, and
// prints it as one JSON object: `read_gb_s`, reading memory, and `matmul_gflops`, products of large
// matrices by type (`int8`: only where the processor has instructions for it). Given a checkpoint,
// also what its model asks for, in numbers and operations (`work`).
//
//   limits_bench [MODEL] [--read-only]      --read-only: nothing but `read_gb_s`, in half a second

#include <ATen/Parallel.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

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

}  // namespace

int main(int argc, char** argv) {
  bool read_only = false;
  nlohmann::json report;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--read-only") {
      read_only = true;
    } else if (word.rfind('-', 0) != 0) {
      report["work"] = work_of(word);
    } else {
      std::cout
          << "limits_bench [MODEL] [--read-only]: read rate and matrix products of this CPU\n";
      return word == "--help" || word == "-h" ? 0 : 2;
    }
  }
  report["threads"] = at::get_num_threads();
  report["read_gb_s"] = bench::read_gb_s();
  if (!read_only) {
    for (const auto& [name, type] :
         {std::pair("float32", at::kFloat), std::pair("bfloat16", at::kBFloat16),
          std::pair("int8", at::kChar)}) {
      if (const auto reached = bench::matmul_gflops(type)) {
        report["matmul_gflops"][name] = *reached;
      }
    }
  }
  std::cout << report.dump() << std::endl;
}
