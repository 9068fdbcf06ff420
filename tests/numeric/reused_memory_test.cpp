// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/reused_memory.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace vlm {
namespace {

constexpr int64_t kBig = int64_t{1} << 20;

at::Tensor bytes(int64_t count) {
  return at::empty({count}, at::kByte);
}

class ReusedMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override { ReusedMemory::let_go(); }
  void TearDown() override { ReusedMemory::let_go(); }
};

TEST_F(ReusedMemoryTest, the_next_tensor_of_that_size_gets_it) {
  const ReusedMemory guard;
  at::Tensor tensor = bytes(kBig);
  const void* data = tensor.const_data_ptr();
  EXPECT_EQ(ReusedMemory::kept_bytes(), 0U);
  tensor.reset();
  EXPECT_EQ(ReusedMemory::kept_bytes(), static_cast<size_t>(kBig));
  // What is much smaller would waste it.
  EXPECT_NE(bytes(kBig / 2).const_data_ptr(), data);
  tensor = bytes(kBig - 1000);
  EXPECT_EQ(tensor.const_data_ptr(), data);
}

TEST_F(ReusedMemoryTest, tensors_in_use_at_a_time_never_share) {
  const ReusedMemory guard;
  std::vector<at::Tensor> tensors;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 8; ++i) tensors.push_back(bytes(kBig + i).fill_(i));
    for (int i = 0; i < 8; ++i) {
      EXPECT_TRUE(tensors[static_cast<size_t>(i)].eq(i).all().item<bool>());
    }
    tensors.clear();
  }
}

TEST_F(ReusedMemoryTest, without_a_guard_or_below_a_size_nothing_is_kept) {
  bytes(kBig).reset();
  EXPECT_EQ(ReusedMemory::kept_bytes(), 0U);
  const ReusedMemory guard;
  bytes(1000).reset();
  EXPECT_EQ(ReusedMemory::kept_bytes(), 0U);
  std::thread([] { bytes(kBig).reset(); }).join();
  EXPECT_EQ(ReusedMemory::kept_bytes(), 0U);
}

TEST_F(ReusedMemoryTest, tensors_may_outlive_the_guard_and_end_elsewhere) {
  at::Tensor tensor;
  {
    const ReusedMemory guard;
    const ReusedMemory nested;
    tensor = bytes(kBig);
  }
  std::thread([&] { tensor.reset(); }).join();
  EXPECT_EQ(ReusedMemory::kept_bytes(), static_cast<size_t>(kBig));
}

TEST_F(ReusedMemoryTest, what_is_kept_is_bounded_and_the_oldest_goes_first) {
  const ReusedMemory guard;
  constexpr auto kMost = static_cast<int64_t>(ReusedMemory::kMostBytes);
  bytes(kBig).reset();
  { const at::Tensor half = bytes(kMost / 2), other_half = bytes(kMost / 2); }
  EXPECT_EQ(ReusedMemory::kept_bytes(), ReusedMemory::kMostBytes);
  bytes(kMost * 2).reset();
  EXPECT_LE(ReusedMemory::kept_bytes(), ReusedMemory::kMostBytes);
  ReusedMemory::let_go();
  EXPECT_EQ(ReusedMemory::kept_bytes(), 0U);
}

// libtorch takes memory without a tensor around it, too.
TEST_F(ReusedMemoryTest, bare_memory_comes_and_goes) {
  bytes(1);
  void* outside = c10::GetCPUAllocator()->raw_allocate(kBig);
  const ReusedMemory guard;
  void* inside = c10::GetCPUAllocator()->raw_allocate(kBig);
  c10::GetCPUAllocator()->raw_deallocate(outside);
  EXPECT_EQ(ReusedMemory::kept_bytes(), 0U);
  c10::GetCPUAllocator()->raw_deallocate(inside);
  EXPECT_EQ(ReusedMemory::kept_bytes(), static_cast<size_t>(kBig));
}

}  // namespace
}  // namespace vlm
