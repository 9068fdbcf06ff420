// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/laid_out_rows.h"
#include "kernels/packed_matrix.h"
#include "numeric/random_values.h"

namespace vlm {
namespace {

using Kernel = void (*)(const MatVecArgs&);

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
                                                                      {5, 31, 3},
                                                                      {7, 33, 4},
                                                                      {64, 192, 5},
                                                                      {130, 257, 1},
                                                                      {33, 2048, 9},
                                                                      {9, 11008, 2},
                                                                      {300, 640, 8}}) {
      all.push_back({format, outputs, inputs, rows});
    }
  }
  return all;
}

std::vector<std::byte> packed(const PackedShape& shape, const std::vector<float>& weights) {
  std::vector<std::byte> bytes(static_cast<size_t>(shape.bytes()));
  pack_rows(shape, weights.data(), shape.outputs, bytes.data());
  return bytes;
}

std::vector<float> product(const PackedShape& shape, const std::vector<std::byte>& weights,
                           const std::vector<float>& x, Kernel kernel) {
  const auto rows = static_cast<int64_t>(x.size()) / shape.inputs;
  std::vector<float> y(static_cast<size_t>(rows * shape.outputs), -1);
  kernel({shape, weights.data(), x.data(), y.data(), rows});
  return y;
}

class MatVec : public ::testing::TestWithParam<Case> {
 protected:
  void expect_parts(const LaidOutRows& laid_out, const std::vector<std::byte>& bytes,
                    const std::vector<float>& whole) const {
    const int64_t rows = GetParam().rows;
    for (int64_t begin = 0, count = 1; begin < shape_.outputs; begin += count, count += 2) {
      const int64_t end = std::min(shape_.outputs, begin + count), stride = end - begin + 3;
      std::vector<float> y(static_cast<size_t>(rows * stride));
      laid_out.multiply({shape_, bytes.data(), begin, end, y.data(), stride});
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = begin; i < end; ++i) {
          ASSERT_EQ(y[static_cast<size_t>(row * stride + i - begin)],
                    whole[static_cast<size_t>(row * shape_.outputs + i)]);
        }
      }
    }
  }

  const PackedShape shape_{GetParam().format, GetParam().outputs, GetParam().inputs};
  const std::vector<float> weights_ = random_values(shape_.outputs * shape_.inputs, 1, 0.05f);
  const std::vector<float> x_ = random_values(GetParam().rows * shape_.inputs, 2);
};

TEST_P(MatVec, every_kernel_equals_the_reference) {
  const std::vector<std::byte> bytes = packed(shape_, weights_);
  const std::vector<float> wanted = product(shape_, bytes, x_, matvec_reference);
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    const std::vector<float> got = product(shape_, bytes, x_, family.product);
    const double length = std::sqrt(static_cast<double>(shape_.inputs));
    for (size_t i = 0; i < wanted.size(); ++i) {
      // The largest of x is about 4, and rounded to 15 bits where weights are whole numbers.
      ASSERT_NEAR(got[i], wanted[i], 0.05 * 4 * 6e-5 * length + 1e-6) << "element " << i;
    }
  }
}

TEST_P(MatVec, a_row_does_not_depend_on_the_rows_beside_it) {
  const std::vector<std::byte> bytes = packed(shape_, weights_);
  const std::vector<float> together = product(shape_, bytes, x_, matvec_cpu);
  for (int64_t row = 0; row < GetParam().rows; ++row) {
    const std::vector<float> x(x_.begin() + row * shape_.inputs,
                               x_.begin() + (row + 1) * shape_.inputs);
    const std::vector<float> alone = product(shape_, bytes, x, matvec_cpu);
    for (int64_t i = 0; i < shape_.outputs; ++i) {
      ASSERT_EQ(alone[static_cast<size_t>(i)],
                together[static_cast<size_t>(row * shape_.outputs + i)]);
    }
  }
}

// As callers do that share out the work themselves: no matter where the outputs are cut.
TEST_P(MatVec, parts_of_the_outputs_are_those_of_the_whole) {
  const std::vector<std::byte> bytes = packed(shape_, weights_);
  const int64_t rows = GetParam().rows;
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    const auto laid_out = family.make_rows();
    for (const bool in_bytes : {false, true, false}) {
      std::vector<float> whole(static_cast<size_t>(rows * shape_.outputs));
      family.product({shape_, bytes.data(), x_.data(), whole.data(), rows, in_bytes});
      // Another matrix's rows before, which leave nothing behind.
      laid_out->reset({PackedFormat::kInt4, 2 * shape_.inputs, rows + 1, !in_bytes}, nullptr);
      laid_out->reset({shape_.format, shape_.inputs, rows, in_bytes}, x_.data());
      for (int64_t row = rows - 1; row >= 0; --row) {
        laid_out->lay_out(row, x_.data() + row * shape_.inputs);
      }
      expect_parts(*laid_out, bytes, whole);
    }
  }
}

TEST_P(MatVec, packing_rounds_to_the_nearest_level) {
  const std::vector<std::byte> bytes = packed(shape_, weights_);
  std::vector<float> back(weights_.size());
  unpack_rows(shape_, bytes.data(), shape_.outputs, back.data());
  const bool groups = shape_.format == PackedFormat::kInt4;
  const int64_t span = groups ? PackedShape::kGroup : shape_.inputs;
  for (int64_t row = 0; row < shape_.outputs; ++row) {
    for (int64_t first = 0; first < shape_.inputs; first += span) {
      const int64_t begin = row * shape_.inputs + first;
      const int64_t end = begin + std::min(span, shape_.inputs - first);
      float top = 0;
      for (int64_t i = begin; i < end; ++i) top = std::max(top, std::abs(weights_[i]));
      for (int64_t i = begin; i < end; ++i) {
        // Half a level; at the far end of int4's lopsided range a whole one, of a rounded scale.
        const float limit = groups                                 ? top / 8 * 1.05f
                            : shape_.format == PackedFormat::kInt8 ? top / 127 * 0.51f
                                                                   : std::abs(weights_[i]) / 256;
        ASSERT_NEAR(back[i], weights_[i], limit) << "element " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, MatVec, ::testing::ValuesIn(cases()));

// Matrices that no core's cache holds meet two and three rows in an order of their own.
TEST(MatVecFromMemory, few_rows_of_halves_equal_the_reference_and_each_alone) {
  for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{1101, 1024}, {602, 2049}}) {
    const PackedShape shape = {PackedFormat::kBFloat16, outputs, inputs};
    ASSERT_GT(shape.bytes(), int64_t{1} << 21);
    const std::vector<std::byte> bytes = packed(shape, random_values(outputs * inputs, 1, 0.05f));
    for (const int64_t rows : {2, 3}) {
      std::vector<float> x = random_values(rows * inputs, 2);
      for (float& value : x) {
        uint16_t half;
        narrow(value, &half);
        value = widen(half);
      }
      const std::vector<float> wanted = product(shape, bytes, x, matvec_reference);
      for (const MatVecFamily& family : matvec_families()) {
        SCOPED_TRACE(family.name);
        const std::vector<float> got = product(shape, bytes, x, family.product);
        for (size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 1e-4) << i;
        for (int64_t row = 0; row < rows; ++row) {
          const std::vector<float> own(x.begin() + row * inputs, x.begin() + (row + 1) * inputs);
          const std::vector<float> alone = product(shape, bytes, own, family.product);
          ASSERT_TRUE(std::equal(alone.begin(), alone.end(), got.begin() + row * outputs));
        }
      }
    }
  }
}

// Every number of rows up to where all ways of dividing them have been met.
class MatVecRows : public ::testing::TestWithParam<PackedFormat> {};

void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, int64_t inputs) {
  // The largest of x is about 5, and rounded to 15 bits: six times the deviation that makes.
  const double limit = 0.05 * 5 * 1.1e-4 * std::sqrt(static_cast<double>(inputs)) + 1e-6;
  for (size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(got[i], wanted[i], limit) << i;
}

TEST_P(MatVecRows, each_is_the_same_among_any_number_of_rows) {
  constexpr int64_t kRows = 40;
  for (const auto& [outputs, inputs] : std::initializer_list<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 32}, {4, 95}, {7, 129}, {5, 2051}, {130, 640}, {9, 4500}}) {
    SCOPED_TRACE(std::to_string(outputs) + " x " + std::to_string(inputs));
    const PackedShape shape{GetParam(), outputs, inputs};
    const auto bytes = packed(shape, random_values(outputs * inputs, 3, 0.05f));
    std::vector<float> x = random_values(kRows * inputs, 4);
    // Some rows are bfloat16, which may be multiplied otherwise.
    for (int64_t i = 0; i < kRows * inputs; ++i) {
      uint16_t half;
      narrow(x[static_cast<size_t>(i)], &half);
      if (i / inputs % 3 != 0) x[static_cast<size_t>(i)] = widen(half);
    }
    const std::vector<float> wanted = product(shape, bytes, x, matvec_reference);
    for (const MatVecFamily& family : matvec_families()) {
      SCOPED_TRACE(family.name);
      const std::vector<float> all = product(shape, bytes, x, family.product);
      expect_near(all, wanted, inputs);
      for (int64_t rows = 1; rows<kRows; rows += inputs> 1000 && rows > 12 ? 5 : 1) {
        const std::vector<float> some(x.begin(), x.begin() + rows * inputs);
        const std::vector<float> same(all.begin(), all.begin() + rows * outputs);
        ASSERT_EQ(product(shape, bytes, some, family.product), same) << rows << " rows";
      }
    }
  }
}

// More of x than the cache holds, so that blocks come in another order.
TEST_P(MatVecRows, many_long_ones_equal_the_reference) {
  const PackedShape shape{GetParam(), 150, 4500};
  const auto bytes = packed(shape, random_values(shape.outputs * shape.inputs, 5, 0.05f));
  const std::vector<float> x = random_values(37 * shape.inputs, 6);
  const std::vector<float> wanted = product(shape, bytes, x, matvec_reference);
  const std::vector<float> first(x.begin(), x.begin() + shape.inputs);
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    const std::vector<float> all = product(shape, bytes, x, family.product);
    expect_near(all, wanted, shape.inputs);
    const std::vector<float> row(all.begin(), all.begin() + shape.outputs);
    ASSERT_EQ(product(shape, bytes, first, family.product), row);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, MatVecRows,
                         ::testing::Values(PackedFormat::kBFloat16, PackedFormat::kInt8,
                                           PackedFormat::kInt4));

// What a kernel that takes x in bytes has to make of it: each group has its own largest.
std::vector<float> rounded_to_bytes(const std::vector<float>& x, int64_t inputs) {
  std::vector<float> rounded = x;
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(inputs)) {
    for (int64_t first = 0; first < inputs; first += PackedShape::kGroup) {
      const auto begin = rounded.begin() + static_cast<int64_t>(row) + first;
      const auto end = begin + std::min(PackedShape::kGroup, inputs - first);
      float most = 0;
      for (auto at = begin; at < end; ++at) most = std::max(most, std::abs(*at));
      for (auto at = begin; at < end && most > 0; ++at) {
        *at = std::nearbyint(*at * (kMostOfByte / most)) * (most / kMostOfByte);
      }
    }
  }
  return rounded;
}

std::vector<float> product_in_bytes(const PackedShape& shape, const std::vector<std::byte>& weights,
                                    const std::vector<float>& x, const MatVecFamily& family) {
  const auto rows = static_cast<int64_t>(x.size()) / shape.inputs;
  std::vector<float> y(static_cast<size_t>(rows * shape.outputs), -1);
  family.product({shape, weights.data(), x.data(), y.data(), rows, true});
  return y;
}

TEST(MatVecBytes, are_the_products_of_rounded_x_in_any_number_of_rows) {
  constexpr int64_t kRows = 11;
  for (const auto& [outputs, inputs] : std::initializer_list<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 32}, {4, 95}, {7, 257}, {5, 2051}, {130, 640}, {9, 4500}}) {
    SCOPED_TRACE(std::to_string(outputs) + " x " + std::to_string(inputs));
    const PackedShape shape{PackedFormat::kInt4, outputs, inputs};
    const auto bytes = packed(shape, random_values(outputs * inputs, 7, 0.05f));
    std::vector<float> x = random_values(kRows * inputs, 8);
    // A value beside which the others of its group, and no more than those, are small.
    x[0] = 1000;
    const std::vector<float> exact = product(shape, bytes, x, matvec_reference);
    const std::vector<float> wanted =
        product(shape, bytes, rounded_to_bytes(x, inputs), matvec_reference);
    for (const MatVecFamily& family : matvec_families()) {
      SCOPED_TRACE(family.name);
      const std::vector<float> all = product_in_bytes(shape, bytes, x, family);
      const double length = std::sqrt(static_cast<double>(inputs));
      for (size_t i = 0; i < all.size(); ++i) {
        const double limit = 0.05 * (static_cast<int64_t>(i) < outputs ? 1000 : 4) * length;
        if (family.takes_bytes) {
          ASSERT_NEAR(all[i], wanted[i], limit * 2e-6 + 1e-6) << i;
        } else {
          ASSERT_NEAR(all[i], exact[i], limit * 6e-5 + 1e-6) << i;
        }
      }
      for (int64_t rows = 1; rows < kRows; ++rows) {
        const std::vector<float> some(x.begin(), x.begin() + rows * inputs);
        const std::vector<float> same(all.begin(), all.begin() + rows * outputs);
        ASSERT_EQ(product_in_bytes(shape, bytes, some, family), same) << rows << " rows";
      }
    }
  }
}

// All levels but one of each group are the highest, and so is all of x.
TEST(MatVecBytes, the_largest_sums_fit) {
  const PackedShape shape{PackedFormat::kInt4, 5, 1024};
  std::vector<float> weights(5 * 1024, -7);
  for (size_t i = 0; i < weights.size(); i += PackedShape::kGroup) weights[i] = 8;
  const auto bytes = packed(shape, weights);
  for (const float sign : {1.0F, -1.0F}) {
    const std::vector<float> x(6 * 1024, sign);
    const std::vector<float> wanted = product(shape, bytes, x, matvec_reference);
    ASSERT_EQ(wanted[0], -sign * (31 * 7 - 8) * 32);
    for (const MatVecFamily& family : matvec_families()) {
      SCOPED_TRACE(family.name);
      const std::vector<float> got = product_in_bytes(shape, bytes, x, family);
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 0.01) << i;
    }
  }
}

TEST(MatVecBytes, what_is_too_small_to_have_a_scale_counts_as_0) {
  const PackedShape shape{PackedFormat::kInt4, 3, 64};
  const auto bytes = packed(shape, random_values(3 * 64, 9, 0.05f));
  std::vector<float> x(64, 1e-38F);
  std::fill(x.begin() + 32, x.end(), 1.0F);
  std::vector<float> zeros = x;
  std::fill(zeros.begin(), zeros.begin() + 32, 0.0F);
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    if (!family.takes_bytes) continue;
    EXPECT_EQ(product_in_bytes(shape, bytes, x, family),
              product_in_bytes(shape, bytes, zeros, family));
  }
}

TEST(MatVecBytes, what_is_no_number_stays_in_its_row) {
  const PackedShape shape{PackedFormat::kInt4, 3, 70};
  const auto bytes = packed(shape, random_values(3 * 70, 9, 0.05f));
  std::vector<float> x = random_values(3 * 70, 10);
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    std::vector<float> odd = x;
    odd[3] = std::numeric_limits<float>::infinity();
    odd[2 * 70 + 69] = std::nanf("");
    const std::vector<float> before = product_in_bytes(shape, bytes, x, family);
    const std::vector<float> after = product_in_bytes(shape, bytes, odd, family);
    for (size_t i = 0; i < after.size(); ++i) {
      if (i / 3 == 1) {
        ASSERT_EQ(after[i], before[i]);
      } else {
        ASSERT_FALSE(std::isfinite(after[i]));
      }
    }
  }
}

TEST(MatVecValues, zeros_and_what_is_no_number_stay_what_they_are) {
  const float infinite = std::numeric_limits<float>::infinity();
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    for (const PackedFormat format :
         {PackedFormat::kBFloat16, PackedFormat::kInt8, PackedFormat::kInt4}) {
      const PackedShape shape{format, 2, 40};
      std::vector<float> weights(80, 0), x(40, 1);
      const auto y = [&] { return product(shape, packed(shape, weights), x, family.product); };
      EXPECT_EQ(y(), std::vector<float>(2, 0));
      weights.assign(80, 1e-44f);
      EXPECT_EQ(y()[0],
                product(shape, packed(shape, weights), x, matvec_families().back().product)[0]);
      weights.assign(80, 0.5f);
      for (const float odd : {infinite, std::nanf("")}) {
        x[3] = odd;
        EXPECT_FALSE(std::isfinite(y()[1]));
      }
    }
  }
}

TEST(MatVecValues, the_largest_sums_do_not_overflow) {
  for (const MatVecFamily& family : matvec_families()) {
    SCOPED_TRACE(family.name);
    for (const PackedFormat format : {PackedFormat::kInt8, PackedFormat::kInt4}) {
      const PackedShape shape{format, 1, 40000};
      const std::vector<float> weights(40000, -1), x(40000, 1000);
      EXPECT_NEAR(product(shape, packed(shape, weights), x, family.product)[0], -4e7f, 4e3f);
    }
  }
}

TEST(MatVecValues, nothing_is_written_for_no_rows) {
  const PackedShape shape{PackedFormat::kInt8, 3, 40};
  const auto bytes = packed(shape, std::vector<float>(120, 1));
  for (const MatVecFamily& family : matvec_families()) {
    float y = 7;
    family.product({shape, bytes.data(), nullptr, &y, 0});
    EXPECT_EQ(y, 7);
  }
}

}  // namespace
}  // namespace vlm
