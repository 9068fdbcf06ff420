// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/compute_threads.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>

#include "base/cores.h"

namespace vlm {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// libtorch's own at::set_num_threads would also reach threads that are not ours, and throws away
// what oneDNN has prepared.
void set_threads([[maybe_unused]] int threads) {
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
}

}  // namespace

ComputeThreads ComputeThreads::choose() {
  ComputeThreads threads;
  threads.most = at::get_num_threads();
  if (environment("OMP_NUM_THREADS").empty()) {
    threads.most = std::min(threads.most, usable_cores(allowed_cpus()));
  }
  std::string dynamic = environment("OMP_DYNAMIC");
  std::transform(dynamic.begin(), dynamic.end(), dynamic.begin(),
                 [](unsigned char letter) { return std::tolower(letter); });
  if (dynamic == "false") threads.least = threads.most;
  return threads;
}

TeamSize::TeamSize(int threads) : before_(at::get_num_threads()) {
  // Each library that has parallel_for in it sets a thread's number when it first comes there; this
  // one must have done so, as libtorch has.
  at::internal::lazy_init_num_threads();
  set_threads(threads);
}

TeamSize::~TeamSize() {
  set_threads(before_);
}

}  // namespace vlm
