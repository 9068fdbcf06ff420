// SPDX-License-Identifier: LGPL-2.1-or-later
#include "layers/linear.h"

#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace vlm {
namespace {

TEST(Linear, weights_that_move_stay_the_same) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Tensor weight = at::randn({300, 200}).to(type);
    const void* before = weight.const_data_ptr();
    Linear linear(std::move(weight));
    const at::Tensor few = at::randn({3, 200}).to(type), many = at::randn({150, 200}).to(type);
    const at::Tensor wanted_few = linear.forward(few), wanted_many = linear.forward(many);
    HugeMemory memory;
    linear.move_weights(memory);
    EXPECT_NE(linear.gpu_matrix().weights, before);
    EXPECT_TRUE(linear.forward(few).equal(wanted_few));
    EXPECT_TRUE(linear.forward(many).equal(wanted_many));
  }
}

TEST(Linear, a_table_that_is_shared_stays_where_it_is) {
  const at::Tensor table = at::randn({30, 20});
  Linear linear(table);
  HugeMemory memory;
  linear.move_weights(memory);
  EXPECT_EQ(linear.gpu_matrix().weights, table.const_data_ptr());
}

TEST(Linear, weights_in_large_pages_stay_where_they_are) {
  HugeMemory memory;
  Linear linear(memory.take({30, 20}, at::kFloat).normal_());
  const void* before = linear.gpu_matrix().weights;
  EXPECT_TRUE(linear.move_weights(memory));
  EXPECT_EQ(linear.gpu_matrix().weights, before);
}

}  // namespace
}  // namespace vlm
