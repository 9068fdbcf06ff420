// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/huge_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "process_memory.h"
#include "vlm/types.h"

namespace vlm {
namespace {

using test::status_mib;

constexpr int64_t kMiB = int64_t{1} << 20;

uintptr_t address(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
}

TEST(HugeMemory, gives_each_its_own) {
  HugeMemory memory;
  std::vector<at::Tensor> all;
  for (int64_t i = 0; i < 40; ++i) {
    all.push_back(memory.take({1000 + 7 * i, 999}, i % 2 == 0 ? at::kBFloat16 : at::kByte));
    EXPECT_TRUE(all.back().is_contiguous());
    EXPECT_EQ(address(all.back()) % 64, 0u);
    all.back().fill_(i);
  }
  for (int64_t i = 0; i < 40; ++i) {
    EXPECT_EQ(all[static_cast<size_t>(i)].sizes(), at::IntArrayRef({1000 + 7 * i, 999}));
    EXPECT_TRUE(all[static_cast<size_t>(i)].eq(i).all().item<bool>()) << "tensor " << i;
  }
}

TEST(HugeMemory, outlives_whoever_gave_it) {
  at::Tensor kept;
  {
    HugeMemory memory;
    kept = memory.take({3, 5}, at::kFloat);
    kept.fill_(7);
  }
  EXPECT_TRUE(kept.eq(7).all().item<bool>());
}

TEST(HugeMemory, knows_its_own) {
  HugeMemory memory;
  const at::Tensor own = memory.take({8, 4}, at::kFloat);
  EXPECT_TRUE(HugeMemory::holds(own));
  EXPECT_TRUE(HugeMemory::holds(own.narrow(0, 1, 2)));
  EXPECT_FALSE(HugeMemory::holds(at::full({8, 4}, 1.0)));
}

TEST(HugeMemory, gives_nothing_twice_after_a_move) {
  HugeMemory memory;
  const at::Tensor first = memory.take({100}, at::kByte);
  HugeMemory moved(std::move(memory));
  const at::Tensor second = moved.take({100}, at::kByte);
  EXPECT_GE(address(second), address(first) + 100);
}

TEST(HugeMemory, takes_what_is_larger_than_a_block_and_nothing) {
  HugeMemory memory;
  const at::Tensor large = memory.take({150, kMiB}, at::kByte);
  large.select(0, 149).fill_(3);
  EXPECT_TRUE(large.select(0, 149).eq(3).all().item<bool>());
  EXPECT_EQ(memory.take({0, 8}, at::kFloat).numel(), 0);
}

TEST(HugeMemory, gives_nothing_where_there_is_no_more) {
  HugeMemory memory;
  EXPECT_FALSE(memory.take({int64_t{1} << 20, kMiB * 64}, at::kByte).defined());
  EXPECT_TRUE(memory.take({10}, at::kByte).defined());
}

TEST(HugeMemory, gives_memory_back_and_takes_little_more_than_is_used) {
  const double before = status_mib("VmRSS");
  if (before == 0) GTEST_SKIP() << "no /proc/self/status here";
  {
    HugeMemory memory;
    std::vector<at::Tensor> all;
    for (int i = 0; i < 200; ++i) {
      all.push_back(memory.take({kMiB}, at::kByte));
      all.back().fill_(1);
    }
    EXPECT_LT(status_mib("VmRSS") - before, 210);
  }
  EXPECT_LT(status_mib("VmRSS") - before, 20);
}

}  // namespace
}  // namespace vlm
