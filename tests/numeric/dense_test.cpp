// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/dense.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <vector>

namespace vlm {
namespace {

struct Case {
  at::ScalarType type;
  std::vector<int64_t> shape;  // of x
  int64_t outputs;
  bool bias;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    all.push_back({type, {1, 1}, 1, false});
    all.push_back({type, {3, 7}, 5, true});
    all.push_back({type, {2, 17, 33}, 31, true});
    all.push_back({type, {5, 2048}, 1500, true});  // more than one part
    all.push_back({type, {2, 3, 4097}, 700, false});
  }
  return all;
}

class Dense : public ::testing::TestWithParam<Case> {
 protected:
  at::Tensor random(at::IntArrayRef shape, double spread) const {
    return (at::randn(shape) * spread).to(GetParam().type);
  }

  void expect_product(const at::Tensor& got) const {
    ASSERT_EQ(got.scalar_type(), GetParam().type);
    at::Tensor wanted = at::matmul(x_.to(at::kDouble), weight_.to(at::kDouble).t());
    if (bias_.defined()) wanted += bias_.to(at::kDouble);
    ASSERT_EQ(got.sizes(), wanted.sizes());
    // Of float32 sums; of one rounding to the type on top.
    const double rounding = GetParam().type == at::kBFloat16 ? 0x1p-8
                            : GetParam().type == at::kHalf   ? 0x1p-11
                                                             : 0;
    const at::Tensor error = (got.to(at::kDouble) - wanted).abs();
    const at::Tensor allowed = wanted.abs() * (rounding * 1.001) + 5e-5;
    EXPECT_TRUE((error <= allowed).all().item<bool>()) << error.max().item<double>();
  }

  const int64_t inputs_ = GetParam().shape.back();
  const at::Tensor x_ = random(GetParam().shape, 1);
  const at::Tensor weight_ = random({GetParam().outputs, inputs_}, 0.05);
  const at::Tensor bias_ = GetParam().bias ? random({GetParam().outputs}, 1) : at::Tensor();
};

TEST_P(Dense, is_the_product_rounded_once) {
  expect_product(dense(x_, weight_, bias_));
}

TEST_P(Dense, by_parts_is_the_same_product) {
  expect_product(
      dense_by_parts(x_, GetParam().outputs, bias_, [&](int64_t first, const at::Tensor& rows) {
        rows.copy_(weight_.narrow(0, first, rows.size(0)));
      }));
}

TEST_P(Dense, takes_what_is_not_contiguous) {
  const at::Tensor x = at::stack({x_, x_}, -1).select(-1, 1);
  const at::Tensor weight = at::stack({weight_, weight_}, -1).select(-1, 1);
  expect_product(dense(x, weight, bias_));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Dense, ::testing::ValuesIn(cases()));

}  // namespace
}  // namespace vlm
