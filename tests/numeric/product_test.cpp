// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/product.h"

#include <ATen/Parallel.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"
#include "kernels/packed_matrix.h"
#include "numeric/random_values.h"

namespace vlm {
namespace {

constexpr double kRelative = 3e-7;  // of a sum in float32

std::vector<uint16_t> narrowed(const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) narrow(values[i], &halves[i]);
  return halves;
}

std::vector<float> widened(const std::vector<uint16_t>& halves) {
  std::vector<float> values(halves.size());
  for (size_t i = 0; i < halves.size(); ++i) values[i] = widen(halves[i]);
  return values;
}

// Weights, rows of x and a bias of one shape.
struct Problem {
  Problem(PackedFormat format, int64_t outputs, int64_t inputs, int64_t row_count)
      : shape{format, outputs, inputs}, rows(row_count) {
    const std::vector<float> values = random_values(outputs * inputs, 1, 0.05f);
    weights.resize(static_cast<size_t>(shape.bytes()));
    pack_rows(shape, values.data(), outputs, weights.data());
    x = narrowed(random_values(rows * inputs, 2, 1));
    bias = narrowed(random_values(outputs, 3, 1));
  }

  std::vector<uint16_t> solve(const ProductFamily& family, int64_t first, int64_t count,
                              bool biased = true) const {
    std::vector<uint16_t> y(static_cast<size_t>(count * shape.outputs), 0x7FC0);
    family.product({{shape, weights.data(), x.data() + first * shape.inputs,
                     biased ? bias.data() : nullptr, y.data(), count}});
    return y;
  }

  // Sums of double precision; `size`: of the absolute values.
  std::pair<double, double> expected(int64_t row, int64_t output) const {
    std::vector<float> values(static_cast<size_t>(shape.inputs));
    unpack_rows(shape, weights.data() + output * shape.row_bytes(), 1, values.data());
    double sum = 0, size = 0;
    for (int64_t i = 0; i < shape.inputs; ++i) {
      const double part =
          static_cast<double>(values[static_cast<size_t>(i)]) *
          static_cast<double>(widen(x[static_cast<size_t>(row * shape.inputs + i)]));
      sum += part;
      size += std::abs(part);
    }
    return {sum, size};
  }

  // The same with x and int4's weights rounded so.
  std::pair<double, double> expected_in_whole_numbers(int64_t row, int64_t output,
                                                      const ProductRounding& rounding) const {
    const auto most_of_x = static_cast<float>(rounding.most_of_x);
    std::vector<float> values(static_cast<size_t>(shape.inputs));
    unpack_rows(shape, weights.data() + output * shape.row_bytes(), 1, values.data());
    double unit = 0;
    if (rounding.most_of_int4 > 0 && shape.format == PackedFormat::kInt4) {
      unit = round_levels(output, rounding.most_of_int4, values);
    }
    // Factors in 16 bits are rounded themselves.
    const double slack = rounding.most_of_int4 > 127 ? unit : 0;
    double sum = 0, size = 0;
    for (int64_t first = 0; first < shape.inputs; first += rounding.inputs) {
      const int64_t count = std::min(rounding.inputs, shape.inputs - first);
      const uint16_t* from = x.data() + row * shape.inputs + first;
      float most = 0;
      for (int64_t i = 0; i < count; ++i) most = std::max(most, std::abs(widen(from[i])));
      for (int64_t i = 0; i < count && most > 0; ++i) {
        const double part =
            static_cast<double>(std::nearbyint(widen(from[i]) * (most_of_x / most))) *
            static_cast<double>(most / most_of_x) *
            static_cast<double>(values[static_cast<size_t>(first + i)]);
        sum += part;
        size += std::abs(part) + slack / kRelative * static_cast<double>(std::abs(widen(from[i])));
      }
    }
    return {sum, size};
  }

  // Returns what one is worth.
  float round_levels(int64_t output, int most_of_int4, std::vector<float>& values) const {
    const std::byte* packed = weights.data() + output * shape.row_bytes();
    std::vector<float> scales(static_cast<size_t>(shape.padded_inputs() / PackedShape::kGroup));
    float most = 0;
    for (size_t i = 0; i < scales.size(); ++i) {
      scales[i] = group_scale(shape, packed, static_cast<int64_t>(i) * PackedShape::kGroup);
      most = std::max(most, std::abs(scales[i]));
    }
    const float unit = most * 8 / static_cast<float>(most_of_int4);
    for (size_t i = 0; i < values.size() && unit > 0; ++i) {
      const float scale = scales[i / PackedShape::kGroup];
      const float level = scale == 0 ? 0 : std::nearbyint(values[i] / scale);
      values[i] = std::nearbyint(level * (scale * (1 / unit))) * unit;
    }
    return unit;
  }

  PackedShape shape;
  int64_t rows;
  std::vector<std::byte> weights;
  std::vector<uint16_t> x, bias;
};

struct Case {
  PackedFormat format;
  int64_t outputs, inputs, rows;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const PackedFormat format :
       {PackedFormat::kBFloat16, PackedFormat::kInt8, PackedFormat::kInt4}) {
    for (const auto& [outputs, inputs, rows] :
         std::initializer_list<std::tuple<int64_t, int64_t, int64_t>>{{1, 1, 1},
                                                                      {3, 7, 2},
                                                                      {31, 31, 16},
                                                                      {33, 33, 17},
                                                                      {64, 192, 31},
                                                                      {130, 257, 33},
                                                                      {40, 2048, 49},
                                                                      {20, 2080, 5},
                                                                      {10, 11008, 2},
                                                                      {330, 640, 70},
                                                                      {17, 4100, 40},
                                                                      {9, 65, 1100}}) {
      all.push_back({format, outputs, inputs, rows});
    }
  }
  return all;
}

class Product : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (product_families().empty()) GTEST_SKIP() << "no products of our own run here";
  }
  void expect_sums(const ProductFamily& family) const {
    const PackedFormat format = problem_.shape.format;
    const ProductRounding rounding = family.rounding(format);
    const bool rounds_x = rounding.inputs > 0;
    // Rounded once to bfloat16; int4's weights once more, each on its own.
    const double per_weight = format == PackedFormat::kInt4 && !rounds_x ? 1.0 / 512 : 0;
    for (const bool biased : {true, false}) {
      SCOPED_TRACE(std::string(family.name) + (biased ? " with a bias" : ""));
      const std::vector<uint16_t> y = problem_.solve(family, 0, problem_.rows, biased);
      for (int64_t row = 0; row < problem_.rows; ++row) {
        for (int64_t output = 0; output < problem_.shape.outputs; ++output) {
          auto [sum, size] = !rounds_x ? problem_.expected(row, output)
                                       : problem_.expected_in_whole_numbers(row, output, rounding);
          if (biased) sum += static_cast<double>(widen(problem_.bias[static_cast<size_t>(output)]));
          const double limit = std::abs(sum) / 250 + size * (per_weight + kRelative) + 1e-30;
          ASSERT_NEAR(widen(y[static_cast<size_t>(row * problem_.shape.outputs + output)]), sum,
                      limit)
              << "row " << row << ", output " << output;
        }
      }
    }
  }
  // All that take the format.
  static std::vector<ProductFamily> families(PackedFormat format) {
    std::vector<ProductFamily> all = product_families();
    const ProductFamily* bytes = byte_products();
    const bool more = bytes != nullptr && bytes->product != all.front().product;
    if (more && format != PackedFormat::kBFloat16) all.push_back(*bytes);
    return all;
  }
  const Problem problem_{GetParam().format, GetParam().outputs, GetParam().inputs, GetParam().rows};
};

TEST_P(Product, every_family_equals_sums_of_what_it_rounds) {
  for (const ProductFamily& family : families(GetParam().format)) expect_sums(family);
}

TEST_P(Product, a_row_does_not_depend_on_the_rows_beside_it) {
  for (const ProductFamily& family : families(GetParam().format)) {
    SCOPED_TRACE(family.name);
    const std::vector<uint16_t> together = problem_.solve(family, 0, problem_.rows);
    for (const int64_t row : {int64_t{0}, problem_.rows / 2, problem_.rows - 1}) {
      const std::vector<uint16_t> alone = problem_.solve(family, row, 1);
      const auto from = together.begin() + row * problem_.shape.outputs;
      ASSERT_EQ(alone, std::vector<uint16_t>(from, from + problem_.shape.outputs)) << "row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Product, ::testing::ValuesIn(cases()));

class ProductValues : public Product {};

TEST_P(ProductValues, what_is_no_number_stays_in_its_row) {
  for (const ProductFamily& family : families(GetParam().format)) {
    SCOPED_TRACE(family.name);
    Problem problem(GetParam().format, 20, 100, 40);
    const std::vector<uint16_t> before = problem.solve(family, 0, 40);
    narrow(std::numeric_limits<float>::quiet_NaN(), &problem.x[7 * 100 + 3]);
    narrow(std::numeric_limits<float>::infinity(), &problem.x[9 * 100 + 99]);
    const std::vector<float> after = widened(problem.solve(family, 0, 40));
    for (size_t i = 0; i < after.size(); ++i) {
      if (i / 20 == 7) {
        ASSERT_TRUE(std::isnan(after[i]));
      } else if (i / 20 == 9) {
        ASSERT_FALSE(std::isfinite(after[i]));
        // What is infinite has no scale.
        if (family.rounding(GetParam().format).inputs > 0) {
          ASSERT_TRUE(std::isnan(after[i]));
        }
      } else {
        ASSERT_EQ(after[i], widen(before[i]));
      }
    }
  }
}

TEST_P(ProductValues, the_largest_sums_fit) {
  for (const float sign : {1.0F, -1.0F}) {
    Problem problem(GetParam().format, 40, 1024, 50);
    // In 4 bits all levels but one of each group are the highest.
    std::vector<float> weights(40 * 1024, -7);
    for (size_t i = 0; i < weights.size(); i += PackedShape::kGroup) weights[i] = 8;
    pack_rows(problem.shape, weights.data(), 40, problem.weights.data());
    problem.x = narrowed(std::vector<float>(50 * 1024, sign));
    for (const ProductFamily& family : families(GetParam().format)) {
      SCOPED_TRACE(family.name);
      const float sum = -sign * (31 * 7 - 8) * 32;
      for (const float y : widened(problem.solve(family, 0, 50, false))) {
        ASSERT_NEAR(y, sum, std::abs(sum) / 100);
      }
    }
  }
}

TEST_P(ProductValues, several_at_once_are_what_each_is_alone) {
  for (const int64_t rows : {1, 40, 200}) {
    std::vector<Problem> problems;
    for (const int64_t outputs : {70, 1, 32, 300})
      problems.emplace_back(GetParam().format, outputs, 96, rows);
    for (const ProductFamily& family : families(GetParam().format)) {
      SCOPED_TRACE(family.name);
      std::vector<std::vector<uint16_t>> got;
      std::vector<ProductArgs> all;
      for (const Problem& one : problems) {
        got.emplace_back(static_cast<size_t>(rows * one.shape.outputs));
        all.push_back({one.shape, one.weights.data(), problems[0].x.data(), one.bias.data(),
                       got.back().data(), rows});
      }
      family.product(all);
      for (size_t i = 0; i < problems.size(); ++i) {
        EXPECT_EQ(got[i], problems[i].solve(family, 0, rows)) << "product " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ProductValues,
                         ::testing::Values(Case{PackedFormat::kBFloat16, 0, 0, 0},
                                           Case{PackedFormat::kInt8, 0, 0, 0},
                                           Case{PackedFormat::kInt4, 0, 0, 0}));

// libtorch uses the same units in the same threads, and may rely on how it left them.
TEST(ProductUnits, libtorchs_own_products_stay_right) {
  const at::Tensor x = at::randn({64, 96}).to(at::kBFloat16),
                   weight = at::randn({80, 96}).to(at::kBFloat16);
  const at::Tensor wanted = at::linear(x, weight);
  const Problem problem(PackedFormat::kBFloat16, 100, 100, 40);
  for (const ProductFamily& family : product_families()) {
    const std::vector<uint16_t> first = problem.solve(family, 0, 40);
    EXPECT_TRUE(at::linear(x, weight).equal(wanted)) << family.name;
    EXPECT_EQ(problem.solve(family, 0, 40), first) << family.name;
  }
}

}  // namespace
}  // namespace vlm
