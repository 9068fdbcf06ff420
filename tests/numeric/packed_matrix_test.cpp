// SPDX-License-Identifier: LGPL-2.1-or-later
// Packing, value by value, against the rule as packed_matrix.h has it, one weight at a time.
#include "kernels/packed_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/bfloat16.h"
#include "numeric/random_values.h"

namespace vlm {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float inverse_of(float scale) {
  return std::isnormal(scale) ? 1 / scale : 0;
}

int level(float weight, float inverse, float low, float high) {
  const float value = weight * inverse;
  return static_cast<int>(value >= low ? std::min(std::nearbyint(value), high) : low);
}

float first_largest(std::span<const float> weights) {
  float top = 0;
  for (const float weight : weights) {
    if (std::abs(weight) > std::abs(top)) top = weight;
  }
  return top;
}

void expect_int8(std::span<const float> weights) {
  const PackedShape shape = {PackedFormat::kInt8, 1, static_cast<int64_t>(weights.size())};
  std::vector<std::byte> row(static_cast<size_t>(shape.bytes()) + 8, std::byte{0x55});
  pack_rows(shape, weights.data(), 1, row.data());
  const float wanted_scale = std::abs(first_largest(weights)) / 127;
  float scale;
  std::memcpy(&scale, row.data() + shape.padded_inputs(), sizeof scale);
  EXPECT_EQ(scale, wanted_scale);
  for (size_t i = 0; i < static_cast<size_t>(shape.padded_inputs()); ++i) {
    const int wanted =
        i < weights.size() ? level(weights[i], inverse_of(wanted_scale), -127, 127) : 0;
    ASSERT_EQ(static_cast<int8_t>(row[i]), wanted) << "weight " << i << " of " << weights.size();
  }
  for (size_t i = row.size() - 8; i < row.size(); ++i) ASSERT_EQ(row[i], std::byte{0x55});
}

// Scales and values of 1024 inputs take 64 and 512 bytes; there are fewer behind the last whole
// ones.
int64_t run_of(int64_t input) {
  return input / 1024 * 576;
}
int64_t values_of(const PackedShape& shape, int64_t input) {
  const int64_t held = std::min<int64_t>(1024, shape.padded_inputs() - input / 1024 * 1024);
  return run_of(input) + held / 16;
}

void expect_int4(std::span<const float> weights) {
  const PackedShape shape = {PackedFormat::kInt4, 1, static_cast<int64_t>(weights.size())};
  std::vector<std::byte> row(static_cast<size_t>(shape.bytes()) + 8, std::byte{0x55});
  pack_rows(shape, weights.data(), 1, row.data());
  for (int64_t first = 0; first < shape.padded_inputs(); first += PackedShape::kGroup) {
    const auto begin = std::min(static_cast<size_t>(first), weights.size());
    const auto group = weights.subspan(
        begin, std::min(static_cast<size_t>(PackedShape::kGroup), weights.size() - begin));
    uint16_t wanted_scale, scale;
    narrow(first_largest(group) / -8, &wanted_scale);
    std::memcpy(&scale, row.data() + run_of(first) + first % 1024 / 32 * 2, sizeof scale);
    EXPECT_EQ(scale, wanted_scale) << "group at " << first;
    const float inverse = inverse_of(widen(wanted_scale));
    for (size_t i = 0; i < static_cast<size_t>(PackedShape::kGroup); ++i) {
      const int wanted = i < group.size() ? level(group[i], inverse, -8, 7) : 0;
      const size_t at = static_cast<size_t>(first) + i;
      const auto byte = static_cast<size_t>(values_of(shape, first)) + at % 1024 / 2;
      const int bits = std::to_integer<int>(row[byte]) >> (at % 2 * 4) & 15;
      ASSERT_EQ(bits - 8, wanted) << "weight " << at << " of " << weights.size();
    }
  }
  for (size_t i = row.size() - 8; i < row.size(); ++i) ASSERT_EQ(row[i], std::byte{0x55});
}

void expect_both(const std::vector<float>& weights) {
  expect_int8(weights);
  expect_int4(weights);
}

TEST(PackedMatrix, rounds_as_the_rule_says_at_every_length) {
  for (int64_t inputs = 1; inputs < 300; ++inputs) {
    expect_both(random_values(inputs, static_cast<uint32_t>(inputs), 0.05f));
  }
  for (const int64_t inputs : {1023, 1024, 1025, 1281, 2048, 2100, 5632}) {
    expect_both(random_values(inputs, static_cast<uint32_t>(inputs), 0.05f));
  }
}

TEST(PackedMatrix, rounds_halves_to_even_levels) {
  std::vector<float> weights = {-127};
  for (int i = -40; i < 40; ++i) weights.push_back(static_cast<float>(i) + 0.5f);
  expect_int8(weights);
  std::vector<float> few = {-8, 7.5f, 7.9f};
  for (int i = -8; i < 7; ++i) few.push_back(static_cast<float>(i) + 0.5f);
  expect_int4(few);
}

TEST(PackedMatrix, of_equal_sizes_the_first_gives_the_sign) {
  expect_int4(std::vector<float>{0.5f, -2, 2, 1});
  expect_int4(std::vector<float>{0.5f, 2, -2, 1});
}

TEST(PackedMatrix, what_is_no_number_becomes_the_lowest_level) {
  std::vector<float> weights = random_values(70, 3, 1.0f);
  weights[5] = weights[40] = weights[69] = kNaN;
  expect_both(weights);
  expect_both(std::vector<float>(40, kNaN));
  weights[7] = std::numeric_limits<float>::infinity();
  expect_both(weights);
}

TEST(PackedMatrix, nothing_and_next_to_nothing_become_nothing) {
  expect_both(std::vector<float>(50, 0.0f));
  expect_both(std::vector<float>(50, 1e-42f));
}

}  // namespace
}  // namespace vlm
