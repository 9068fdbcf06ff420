// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/limits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace vlm {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

/// LLaVA-1.5-7B's in 16 bits, where so much is free.
MemoryDemand seven_billion(bool on_cpu, int64_t available) {
  ModelConfig config;
  config.vision = {1024, 4096, 24, 16, 3, 336, 14};
  MemoryDemand demand = activation_demand(config, 2, !on_cpu);
  demand.on_cpu = on_cpu;
  demand.context = 4096;
  demand.available = available;
  demand.slot = 32 * 2 * 32 * 128 * 2;
  return demand;
}

ExecutorLimits limits_of(const MemoryDemand& demand, int64_t prompt_chunk = 0) {
  const Result<ExecutorLimits> limits = choose_limits(demand, prompt_chunk);
  if (limits) return *limits;
  ADD_FAILURE() << limits.error().message;
  return {};
}

TEST(Limits, with_plenty_of_memory_are_the_defaults) {
  const ExecutorLimits cpu = limits_of(seven_billion(true, int64_t{1} << 40));
  EXPECT_EQ(cpu.cache_slots, 16 * 4096);
  EXPECT_EQ(cpu.max_rows, 256);
  EXPECT_EQ(cpu.prompt_chunk, 256);
  EXPECT_EQ(cpu.prompt_part, 2048);
  EXPECT_EQ(cpu.images, 16);
  const ExecutorLimits gpu = limits_of(seven_billion(false, int64_t{1} << 40));
  EXPECT_EQ(gpu.cache_slots, 64 * 4096);
  EXPECT_EQ(gpu.prompt_chunk, 2048);
  EXPECT_EQ(gpu.prompt_part, 2048);
}

TEST(Limits, of_prompts_do_not_grow_with_the_context) {
  MemoryDemand demand = seven_billion(true, int64_t{1} << 40);
  demand.context = 32768;
  EXPECT_EQ(limits_of(demand).prompt_part, 2048);
  demand.on_cpu = false;
  EXPECT_EQ(limits_of(demand).prompt_chunk, 2048);
  demand.context = 100;
  EXPECT_EQ(limits_of(demand).prompt_chunk, 100);
  EXPECT_EQ(limits_of(demand).prompt_part, 100);
}

TEST(Limits, of_prompts_may_be_asked_for) {
  for (const bool on_cpu : {true, false}) {
    const MemoryDemand demand = seven_billion(on_cpu, int64_t{1} << 40);
    EXPECT_EQ(limits_of(demand, 64).prompt_chunk, 64);
    EXPECT_EQ(limits_of(demand, 64).prompt_part, 2048);
    EXPECT_EQ(limits_of(demand, 3000).prompt_chunk, 3000);
    EXPECT_EQ(limits_of(demand, 3000).prompt_part, 3000);
    EXPECT_EQ(limits_of(demand, 9000).prompt_part, 4096);
  }
}

TEST(Limits, never_take_more_than_there_is) {
  for (const bool on_cpu : {true, false}) {
    for (int64_t context : {100, 4096, 32768, 1 << 20}) {
      for (int64_t mib = 1; mib < 100000; mib += 1 + mib / 3) {
        MemoryDemand demand = seven_billion(on_cpu, mib * kMiB);
        demand.context = context;
        const Result<ExecutorLimits> limits = choose_limits(demand, 0);
        if (!limits) {
          EXPECT_EQ(limits.error().kind, ErrorKind::kOutOfMemory);
          continue;
        }
        EXPECT_LE(bytes_at_most(demand, *limits), demand.available) << mib << " MiB";
        EXPECT_GE(limits->cache_slots, std::min<int64_t>(context, 256)) << mib << " MiB";
      }
    }
  }
}

TEST(Limits, give_way_to_each_other_where_memory_is_short) {
  const ExecutorLimits some = limits_of(seven_billion(true, 1500 * kMiB));
  EXPECT_LT(some.prompt_part, 2048);
  EXPECT_GE(some.prompt_part, 256);
  EXPECT_LT(some.images, 16);
  EXPECT_GE(some.images, 1);
  // Less than a context, and not the quarter that others leave of it either.
  EXPECT_LT(some.cache_slots, 4096);
  EXPECT_GT(some.cache_slots * seven_billion(true, 0).slot, 1500 * kMiB / 4);
}

TEST(Limits, leave_weights_in_pages_of_their_file_where_they_are) {
  MemoryDemand demand = seven_billion(true, 20000 * kMiB);
  const int64_t without = limits_of(demand).cache_slots;
  demand.mapped = 13000 * kMiB;
  EXPECT_LT(limits_of(demand).cache_slots, without);
  EXPECT_LE(bytes_at_most(demand, limits_of(demand)), 7000 * kMiB);
  // Of a model larger than the memory they come and go in any case.
  demand.mapped = 26000 * kMiB;
  EXPECT_GT(limits_of(demand).cache_slots, 0);
}

TEST(Limits, without_memory_name_cause_and_cure) {
  const Result<ExecutorLimits> limits = choose_limits(seven_billion(true, 100 * kMiB), 0);
  ASSERT_FALSE(limits);
  EXPECT_EQ(limits.error().kind, ErrorKind::kOutOfMemory);
  for (const char* part : {"key-value cache", "free memory", "smaller model"}) {
    EXPECT_NE(limits.error().message.find(part), std::string::npos) << limits.error().message;
  }
}

}  // namespace
}  // namespace vlm
