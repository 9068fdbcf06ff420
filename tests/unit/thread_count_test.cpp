// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/thread_count.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

namespace vlm {
namespace {

/// A machine on which other programs keep some cores busy. A step's threads share its work out
/// evenly, but for a twentieth. Where there are more of them than free cores, the system lets
/// somebody else have a core for 4 ms now and then, and all wait.
struct Machine {
  int cores = 2;
  int busy = 0;
  double step = 0.0003;  ///< seconds, of one row on all cores when nothing else runs
  double noise = 0.05;
  double wait = 1.2;  ///< for others, of a step's own time
  std::mt19937 random{7};

  double ideal(int threads, int64_t rows) const {
    const auto share = [](int n) { return 0.05 + 0.95 / n; };
    return step * (0.8 + 0.2 * static_cast<double>(rows)) * share(threads) / share(cores);
  }
  double held_up(int threads, int64_t rows) const {
    return threads + busy > cores ? wait * ideal(threads, rows) : 0;
  }
  double mean(int threads, int64_t rows = 1) const {
    return ideal(threads, rows) + held_up(threads, rows);
  }
  double run(int threads, int64_t rows) {
    constexpr double kTurn = 0.004;
    std::poisson_distribution<int> turns(held_up(threads, rows) / kTurn);
    std::normal_distribution<double> wobble(1, noise);
    return ideal(threads, rows) * std::max(0.5, wobble(random)) + turns(random) * kTurn;
  }
};

struct Outcome {
  double seconds = 0;
  int64_t steps = 0;
  double step() const { return seconds / static_cast<double>(steps); }
};

Outcome play(ThreadCount& count, Machine& machine, double seconds,
             const std::vector<int64_t>& rows = {1}) {
  Outcome outcome;
  while (outcome.seconds < seconds) {
    const int64_t now = rows[static_cast<size_t>(outcome.steps) % rows.size()];
    const double took = machine.run(count.next(now), now);
    count.ran(now, took);
    outcome.seconds += took;
    ++outcome.steps;
  }
  return outcome;
}

std::vector<Machine> machines() {
  std::vector<Machine> all;
  for (const int cores : {2, 3, 4, 8, 64}) {
    for (const double step : {0.0003, 0.005, 0.1}) all.push_back({cores, 0, step});
  }
  return all;
}

TEST(ThreadCount, one_core_is_one_thread) {
  ThreadCount count(1, 1);
  Machine machine{1, 1};
  play(count, machine, 10);
  EXPECT_EQ(count.kept(), 1);
  EXPECT_EQ(count.next(1), 1);
}

TEST(ThreadCount, stays_where_nothing_else_is_allowed) {
  ThreadCount count(6, 6);
  for (int step = 0; step < 10000; ++step) {
    ASSERT_EQ(count.next(1), 6);
    count.ran(1, step % 2 * 0.1);
  }
}

TEST(ThreadCount, counts_lie_between_the_two_that_are_allowed) {
  ThreadCount count(3, 12);
  Machine machine{12, 11};
  std::set<int> seen;
  for (int step = 0; step < 200000; ++step) {
    seen.insert(count.next(1));
    count.ran(1, machine.run(count.next(1), 1));
  }
  EXPECT_EQ(*seen.begin(), 3);
  EXPECT_EQ(*seen.rbegin(), 12);
}

TEST(ThreadCount, costs_next_to_nothing_on_an_idle_machine) {
  for (Machine& machine : machines()) {
    ThreadCount count(1, machine.cores);
    const double step = play(count, machine, 120).step();
    EXPECT_LT(step, 1.01 * machine.mean(machine.cores)) << machine.cores << " " << machine.step;
  }
}

TEST(ThreadCount, finds_the_cores_that_are_free) {
  for (Machine& machine : machines()) {
    for (const int busy : {1, machine.cores / 2, machine.cores - 1}) {
      ThreadCount count(1, machine.cores);
      machine.busy = busy;
      play(count, machine, std::max(4.0, 100 * machine.step));
      double best = 1e9;
      for (int threads = 1; threads <= machine.cores; ++threads) {
        best = std::min(best, machine.mean(threads));
      }
      EXPECT_LT(play(count, machine, 30).step(), 1.25 * best)
          << machine.cores << " cores, " << busy << " busy, " << machine.step << " s; keeps "
          << count.kept();
    }
  }
}

TEST(ThreadCount, notices_a_program_that_comes_and_goes) {
  for (Machine& machine : machines()) {
    ThreadCount count(1, machine.cores);
    play(count, machine, 30);
    machine.busy = 1;
    play(count, machine, std::max(1.0, 100 * machine.step));
    EXPECT_LT(count.kept(), machine.cores) << machine.cores << " cores, " << machine.step << " s";
    play(count, machine, 30);
    machine.busy = 0;
    play(count, machine, std::max(3.0, 300 * machine.step));
    EXPECT_LT(machine.mean(count.kept()), 1.05 * machine.mean(machine.cores))
        << machine.cores << " cores, " << machine.step << " s; keeps " << count.kept();
  }
}

TEST(ThreadCount, a_step_of_more_rows_is_no_slower_step) {
  Machine machine{4};
  ThreadCount count(1, 4);
  const std::vector<int64_t> rows = {1, 64, 64, 1, 7, 1};
  const Outcome outcome = play(count, machine, 60, rows);
  double ideal = 0;
  for (const int64_t one : rows) ideal += machine.mean(4, one) / 6;
  EXPECT_LT(outcome.step(), 1.01 * ideal);
  EXPECT_EQ(count.kept(), 4);
  machine.busy = 1;
  play(count, machine, 5, rows);
  EXPECT_EQ(count.kept(), 3);
}

TEST(ThreadCount, a_machine_that_wavers_keeps_nearly_all_of_its_speed) {
  for (const double noise : {0.1, 0.2}) {
    Machine machine{2, 0, 0.05, noise};
    ThreadCount count(1, 2);
    EXPECT_LT(play(count, machine, 120).step(), 1.05 * machine.mean(2)) << noise;
  }
}

TEST(ThreadCount, costs_next_to_nothing_where_all_counts_became_slower) {
  Machine machine{2, 0, 0.025};
  ThreadCount count(1, 2);
  for (int times = 0; times < 10; ++times) {
    play(count, machine, 30);
    machine.step *= 1.5;
    EXPECT_LT(play(count, machine, 30).step(), 1.02 * machine.mean(2)) << times;
    machine.step /= 1.5;
  }
}

TEST(ThreadCount, a_single_long_step_changes_nothing) {
  Machine machine{2};
  ThreadCount count(1, 2);
  for (int i = 0; i < 20; ++i) {
    play(count, machine, 1);
    count.ran(1, 3);
    play(count, machine, 0.5);
    EXPECT_EQ(count.kept(), 2);
  }
}

// A text of 30 tokens after each picture; how long pictures take with each number of threads.
template <typename PictureSeconds>
double describe(StepThreads& threads, Machine& machine, int pictures, PictureSeconds took) {
  using Kind = StepThreads::Kind;
  double sum = 0;
  for (int picture = 0; picture < pictures; ++picture) {
    const double seconds = took(threads.next(Kind::kPictures, 1));
    threads.ran(Kind::kPictures, 1, seconds);
    sum += seconds;
    for (int token = 0; token < 30; ++token) {
      threads.ran(Kind::kDecode, 1, machine.run(threads.next(Kind::kDecode, 1), 1));
    }
  }
  return sum / pictures;
}

TEST(StepThreads, pictures_have_all_threads_while_the_machine_is_idle) {
  Machine machine{4, 0, 0.01};
  StepThreads threads(1, 4);
  describe(threads, machine, 100, [](int count) {
    EXPECT_EQ(count, 4);
    return 1.0;
  });
}

TEST(StepThreads, pictures_keep_all_threads_where_only_decode_steps_may_change) {
  Machine machine{2, 1, 0.0003};
  machine.wait = 3;
  StepThreads threads(1, 2, false);
  describe(threads, machine, 300, [](int count) {
    EXPECT_EQ(count, 2);
    return 0.1;
  });
  EXPECT_EQ(threads.next(StepThreads::Kind::kDecode, 2), 1);
}

TEST(StepThreads, pictures_in_small_pieces_have_no_more_threads_than_there_are_cores_left) {
  Machine machine{2, 1, 0.0003};
  machine.wait = 3;
  StepThreads threads(1, 2);
  const auto took = [](int count) { return count == 1 ? 0.003 : 0.1; };
  describe(threads, machine, 100, took);
  EXPECT_LT(describe(threads, machine, 1000, took), 0.0045);
}

TEST(StepThreads, pictures_in_large_pieces_use_what_is_left_of_a_core) {
  Machine machine{2, 1, 0.05};
  StepThreads threads(1, 2);
  const auto took = [](int count) { return count == 1 ? 1 : 0.7; };
  describe(threads, machine, 10, took);
  EXPECT_LT(describe(threads, machine, 100, took), 0.75);
}

}  // namespace
}  // namespace vlm
