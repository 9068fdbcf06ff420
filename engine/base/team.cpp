// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/team.h"

#include <ATen/Parallel.h>

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vlm {
namespace {

using Clock = std::chrono::steady_clock;

// As long as sleeping and waking up takes: whoever waits longer waits for a thread that has lost
// its core, and may hold it up himself.
constexpr std::chrono::microseconds kPatience{30};
constexpr int kPauses = 64;  // between looks at the clock

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int Team::threads() {
#ifdef _OPENMP
  return at::in_parallel_region() ? 1 : at::get_num_threads();
#else
  return 1;
#endif
}

void Team::run(const std::function<void(Member&)>& work) {
#ifdef _OPENMP
  if (threads() > 1) {
#pragma omp parallel
    {
      // The system may give fewer than were asked for.
      if (omp_get_thread_num() == 0) size_.store(omp_get_num_threads(), std::memory_order_relaxed);
#pragma omp barrier
      Member member(*this, omp_get_thread_num());
      work(member);
    }
    return;
  }
#endif
  size_.store(1, std::memory_order_relaxed);
  Member alone(*this, 0);
  work(alone);
}

void Team::wait() {
  const uint32_t part = part_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 ==
      size_.load(std::memory_order_relaxed)) {
    next_.store(0, std::memory_order_relaxed);
    arrived_.store(0, std::memory_order_relaxed);
    part_.store(part + 1, std::memory_order_release);
    part_.notify_all();
    return;
  }
  const Clock::time_point start = Clock::now();
  do {
    for (int i = 0; i < kPauses; ++i) {
      if (part_.load(std::memory_order_acquire) != part) return;
      pause();
    }
  } while (Clock::now() - start < kPatience);
  part_.wait(part, std::memory_order_acquire);
}

}  // namespace vlm
