// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/fused.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isclose.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "kernels/activation.h"

namespace vlm {
namespace {

// What the reference does, operation by operation.
at::Tensor plain_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + eps);
  return weight * (wide * scale).to(x.scalar_type());
}

at::Tensor plain_rotation(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(-1) / 2;
  return x * cos + at::cat({-x.slice(-1, half), x.slice(-1, 0, half)}, -1) * sin;
}

// Nothing but the order of float32 sums may differ: in a 16-bit type now and then by one rounding,
// which the next may double.
void expect_near(const at::Tensor& got, const at::Tensor& wanted) {
  ASSERT_EQ(got.scalar_type(), wanted.scalar_type());
  ASSERT_EQ(got.sizes(), wanted.sizes());
  const double step = wanted.scalar_type() == at::kFloat      ? 1e-6
                      : wanted.scalar_type() == at::kBFloat16 ? 0x1p-6
                                                              : 0x1p-9;
  const at::Tensor difference = (got.to(at::kDouble) - wanted.to(at::kDouble)).abs();
  const at::Tensor allowed = wanted.to(at::kDouble).abs() * step + 1e-6;
  EXPECT_TRUE((difference <= allowed).all().item<bool>());
  // How often says nothing of a few numbers.
  if (wanted.scalar_type() == at::kFloat || wanted.numel() < 1000) return;
  EXPECT_LE((difference > 0).to(at::kDouble).mean().item<double>(), 0.02);
}

class Fused : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(at::IntArrayRef shape) const { return at::randn(shape).to(GetParam()); }
};

TEST_P(Fused, norm_is_the_references) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {1, 1}, {3, 7}, {2, 5, 33}, {1, 2048}, {40, 513}, {300, 128}}) {
    const at::Tensor x = random(shape) * 3, weight = random({shape.back()});
    expect_near(rms_norm(x, weight, 1e-5), plain_norm(x, weight, 1e-5));
  }
}

TEST_P(Fused, norm_of_rows_that_are_not_contiguous) {
  const at::Tensor x = random({6, 64}).t(), weight = random({6});
  expect_near(rms_norm(x, weight, 1e-6), plain_norm(x, weight, 1e-6));
}

TEST_P(Fused, norm_keeps_what_is_no_number_in_its_row) {
  at::Tensor x = random({3, 20});
  x.select(0, 1).fill_(std::numeric_limits<double>::quiet_NaN());
  const at::Tensor out = rms_norm(x, random({20}), 1e-5);
  EXPECT_TRUE(out.select(0, 1).isnan().all().item<bool>());
  EXPECT_FALSE(out.select(0, 0).isnan().any().item<bool>());
  EXPECT_FALSE(out.select(0, 2).isnan().any().item<bool>());
}

TEST_P(Fused, sum_and_norm_are_the_references) {
  for (const auto& shape :
       std::vector<std::vector<int64_t>>{{1, 1}, {3, 7}, {5, 2048}, {70, 513}}) {
    const at::Tensor x = random(shape) * 3, delta = random(shape), weight = random({shape.back()});
    const Normed got = add_norm(x, delta, weight, 1e-5);
    EXPECT_TRUE(got.sum.equal(x + delta));
    expect_near(got.normed, plain_norm(x + delta, weight, 1e-5));
  }
}

TEST_P(Fused, sum_and_norm_of_rows_that_are_not_contiguous) {
  const at::Tensor x = random({6, 64}).t(), delta = random({64, 6}), weight = random({6});
  const Normed got = add_norm(x, delta, weight, 1e-6);
  EXPECT_TRUE(got.sum.equal(x + delta));
  expect_near(got.normed, plain_norm(x + delta, weight, 1e-6));
}

TEST_P(Fused, activations_are_the_references) {
  for (const int64_t count : {1, 7, 33, 40000}) {
    const at::Tensor x = random({1, count}) * 4, up = random({1, count});
    const at::Tensor silu = at::silu(x), quick = x * at::sigmoid(x * 1.702);
    expect_near(activate(x, Activation::kSilu), silu);
    expect_near(activate(x, Activation::kQuickGelu), quick);
    expect_near(gated(x, up, Activation::kSilu), silu * up);
    expect_near(gated(x, up, Activation::kQuickGelu), quick * up);
    expect_near(gated(x, up, Activation::kRelu), at::relu(x) * up);
  }
}

TEST_P(Fused, activations_of_extreme_values) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const at::Tensor x =
      at::tensor({0.0, -0.0, 100.0, -100.0, 3e4, -3e4, kInfinity, -87.5, 88.5}).to(GetParam());
  for (const Activation activation : {Activation::kSilu, Activation::kQuickGelu}) {
    const at::Tensor got = activate(x, activation);
    const at::Tensor wanted =
        activation == Activation::kSilu ? at::silu(x) : x * at::sigmoid(x * 1.702);
    EXPECT_TRUE(at::isclose(got, wanted, 1e-2, 1e-30).all().item<bool>()) << got << wanted;
  }
  const at::Tensor none = at::full({3}, std::numeric_limits<double>::quiet_NaN()).to(GetParam());
  EXPECT_TRUE(activate(none, Activation::kSilu).isnan().all().item<bool>());
}

TEST_P(Fused, rotation_is_the_references) {
  for (const auto& [rows, heads, head_dim] :
       std::vector<std::array<int64_t, 3>>{{1, 1, 2}, {5, 3, 6}, {17, 4, 64}, {2, 32, 128}}) {
    const at::Tensor x = random({rows, heads, head_dim});
    const at::Tensor cos = random({rows, 1, head_dim}), sin = random({rows, 1, head_dim});
    const at::Tensor got = rotate(x, cos, sin), wanted = plain_rotation(x, cos, sin);
    if (GetParam() == at::kFloat) {
      // Fused multiplications may round once less.
      EXPECT_LE((got - wanted).abs().max().item<double>(), 2e-6);
    } else {
      EXPECT_TRUE(at::equal(got, wanted));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Fused, ::testing::Values(at::kFloat, at::kBFloat16, at::kHalf));

}  // namespace
}  // namespace vlm
