// SPDX-License-Identifier: LGPL-2.1-or-later
#include "layers/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/product.h"
#include "numeric/stored_tensors.h"

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

// In 8 bits no prompt is rounded otherwise than a step.
TEST(Linear, few_rows_and_many_are_rounded_alike_group_by_group) {
  if (byte_products() == nullptr || byte_products()->int4.inputs != PackedShape::kGroup) {
    GTEST_SKIP() << "x is not rounded group by group here";
  }
  test::StoredTensors stored({{"a.weight", at::randn({90, 300}) / 16}});
  TensorSource source = stored.source(at::kBFloat16);
  const Packing packing{PackedFormat::kInt4, true};
  const Linear linear(source, {{"a", 90}}, 300, false, packing);
  const at::Tensor x = at::randn({300, 300}).to(at::kBFloat16);
  ASSERT_FALSE(linear.few_rows_weights(x.size(0)));
  const at::Tensor many = linear.forward(x).to(at::kFloat);
  for (const int64_t rows : {1, 5, 24, 31, 32, 33, 34, 50, 63, 64, 65, 150}) {
    SCOPED_TRACE(std::to_string(rows) + " rows");
    const at::Tensor few = x.narrow(0, 300 - rows, rows);
    ASSERT_TRUE(linear.few_rows_weights(rows) || linear.product_weights(few));
    const at::Tensor got = linear.forward(few).to(at::kFloat);
    const at::Tensor off = (got - many.narrow(0, 300 - rows, rows)).abs();
    // One rounding to bfloat16.
    EXPECT_LT((off / got.abs().clamp_min(1e-3)).max().item<double>(), 1.01 / 128);
  }
}

}  // namespace
}  // namespace vlm
