// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace vlm {
namespace {

// Known answers published with the generator (Random123, kat_vectors, philox4x32 10 rounds).
TEST(Philox, equals_the_published_vectors) {
  const Philox4 zero = philox({{0, 0, 0, 0}}, 0, 0);
  EXPECT_EQ(zero.words[0], 0x6627e8d5u);
  EXPECT_EQ(zero.words[1], 0xe169c58du);
  EXPECT_EQ(zero.words[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.words[3], 0x9b00dbd8u);
  const Philox4 ones = philox({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u);
  EXPECT_EQ(ones.words[0], 0x408f276du);
  EXPECT_EQ(ones.words[1], 0x41c83b0eu);
  EXPECT_EQ(ones.words[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.words[3], 0x6d5451fdu);
}

TEST(UniformDraw, is_inside_the_open_interval_with_the_right_moments) {
  double sum = 0, squares = 0;
  constexpr int kDraws = 100000;
  for (uint32_t i = 0; i < kDraws; ++i) {
    const double u = uniform_draw(42, 7, i / 100, i % 100);
    ASSERT_GT(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 0.005);
}

TEST(UniformDraw, every_coordinate_matters) {
  std::set<double> draws;
  for (uint64_t seed : {0ull, 1ull, 1ull << 40}) {
    for (uint64_t sequence : {0ull, 1ull, 1ull << 40}) {
      for (uint32_t token : {0u, 1u}) {
        for (uint32_t index : {0u, 1u}) draws.insert(uniform_draw(seed, sequence, token, index));
      }
    }
  }
  EXPECT_EQ(draws.size(), 36u);
}

}  // namespace
}  // namespace vlm
