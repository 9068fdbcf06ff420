// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/whole_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/bfloat16.h"
#include "numeric/random_values.h"

namespace vlm {
namespace {

struct Shape {
  int64_t sequences, rows, heads, kv_heads, head_dim;
  bool causal = false;
  int64_t window = 0;
  float spread = 1;  ///< of queries and keys: how far from even the softmax is
};

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return out << shape.sequences << " x " << shape.rows << " rows, " << shape.heads << "/"
             << shape.kv_heads << " heads of " << shape.head_dim << (shape.causal ? ", causal" : "")
             << ", window " << shape.window;
}

std::vector<uint16_t> narrowed(const std::vector<float>& values, float by) {
  std::vector<uint16_t> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) narrow(values[i] * by, &result[i]);
  return result;
}

// q, k and v side by side in a row, as one product gives them, and some more.
class Case {
 public:
  explicit Case(const Shape& shape) : shape_(shape) {
    stride_ = (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 5;
    qkv_ = narrowed(random_values(static_cast<size_t>(shape.sequences * shape.rows * stride_), 7),
                    std::sqrt(shape.spread));
    args_.q = qkv_.data();
    args_.k = args_.q + shape.heads * shape.head_dim;
    args_.v = args_.k + shape.kv_heads * shape.head_dim;
    args_.q_stride = args_.k_stride = args_.v_stride = stride_;
    args_.sequences = shape.sequences;
    args_.rows = shape.rows;
    args_.queries = shape.rows;
    args_.heads = shape.heads;
    args_.kv_heads = shape.kv_heads;
    args_.head_dim = shape.head_dim;
    args_.causal = shape.causal;
    args_.window = shape.window;
    args_.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  }

  std::vector<uint16_t> solve(int64_t first_sequence, int64_t sequences) {
    return solve(first_sequence, sequences, shape_.rows);
  }

  // Of the last `queries` rows alone, in one sequence.
  std::vector<uint16_t> solve_last(int64_t sequence, int64_t queries) {
    return solve(sequence, 1, queries);
  }

 private:
  std::vector<uint16_t> solve(int64_t first_sequence, int64_t sequences, int64_t queries) {
    const int64_t row = first_sequence * shape_.rows;
    WholeAttentionArgs args = args_;
    args.queries = queries;
    args.q += (row + shape_.rows - queries) * stride_;
    args.k += row * stride_;
    args.v += row * stride_;
    args.sequences = sequences;
    // What lies behind must stay.
    std::vector<uint16_t> out(
        static_cast<size_t>(sequences * queries * shape_.heads * shape_.head_dim) + 64, 0x1234);
    args.out = out.data();
    whole_attention_cpu(args);
    for (size_t i = out.size() - 64; i < out.size(); ++i) EXPECT_EQ(out[i], 0x1234);
    out.resize(out.size() - 64);
    return out;
  }

 public:
  // Three plain loops in double precision.
  std::vector<double> wanted(int64_t row, int64_t head) const {
    const int64_t in_sequence = row % shape_.rows, first = row - in_sequence;
    const int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
    const auto value = [&](const uint16_t* from, int64_t at, int64_t own, int64_t i) {
      return static_cast<double>(widen(from[at * stride_ + own * shape_.head_dim + i]));
    };
    std::vector<double> scores;
    const int64_t end = shape_.causal ? in_sequence + 1 : shape_.rows;
    const int64_t begin =
        shape_.causal && shape_.window > 0 ? std::max<int64_t>(0, end - shape_.window) : 0;
    for (int64_t key = begin; key < end; ++key) {
      double score = 0;
      for (int64_t i = 0; i < shape_.head_dim; ++i) {
        score += value(args_.q, row, head, i) * value(args_.k, first + key, kv_head, i);
      }
      scores.push_back(score * args_.scale);
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - most);
    std::vector<double> result(static_cast<size_t>(shape_.head_dim), 0);
    for (int64_t key = begin; key < end; ++key) {
      for (int64_t i = 0; i < shape_.head_dim; ++i) {
        result[static_cast<size_t>(i)] += scores[static_cast<size_t>(key - begin)] / total *
                                          value(args_.v, first + key, kv_head, i);
      }
    }
    return result;
  }

  WholeAttentionArgs args_;
  std::vector<uint16_t> qkv_;

 private:
  const Shape shape_;
  int64_t stride_;
};

class WholeAttention : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    if (!has_whole_attention()) GTEST_SKIP() << "libtorch's is taken on this processor";
  }
};

TEST_P(WholeAttention, is_the_softmax_of_scores_times_values) {
  Case c(GetParam());
  const std::vector<uint16_t> got = c.solve(0, GetParam().sequences);
  const int64_t rows = GetParam().sequences * GetParam().rows;
  size_t at = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < GetParam().heads; ++head) {
      for (const double value : c.wanted(row, head)) {
        // The weights' rounding and the result's; values are below 5 times the spread's root.
        const double limit = std::abs(value) / 256 + 4.0 / 512 * std::sqrt(GetParam().spread);
        ASSERT_NEAR(widen(got[at]), value, limit) << "row " << row << ", head " << head;
        ++at;
      }
    }
  }
}

// As in the parts of a prompt, whose keys and values lie in the cache.
TEST_P(WholeAttention, of_the_last_rows_is_what_they_get_among_all) {
  Case c(GetParam());
  const int64_t last = GetParam().sequences - 1, rows = GetParam().rows;
  const std::vector<uint16_t> all = c.solve(last, 1);
  for (const int64_t queries : {int64_t{1}, rows / 3, rows - 1}) {
    if (queries < 1) continue;
    const std::vector<uint16_t> got = c.solve_last(last, queries);
    for (size_t i = 0; i < got.size(); ++i) {
      const float wanted = widen(all[all.size() - got.size() + i]);
      // Windows begin elsewhere in the parts that keys are met in.
      ASSERT_NEAR(widen(got[i]), wanted, std::abs(wanted) / 64 + 1e-2F)
          << "value " << i << " of the last " << queries << " rows";
    }
  }
}

TEST_P(WholeAttention, of_a_sequence_does_not_depend_on_the_others) {
  Case c(GetParam());
  const std::vector<uint16_t> all = c.solve(0, GetParam().sequences);
  const size_t size = all.size() / static_cast<size_t>(GetParam().sequences);
  for (int64_t i = 0; i < GetParam().sequences; ++i) {
    const auto own = all.begin() + static_cast<std::ptrdiff_t>(size) * i;
    EXPECT_EQ(c.solve(i, 1), std::vector<uint16_t>(own, own + static_cast<std::ptrdiff_t>(size)));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, WholeAttention,
    ::testing::Values(Shape{1, 1, 1, 1, 64}, Shape{1, 1, 2, 1, 8, true}, Shape{2, 5, 3, 3, 16},
                      Shape{3, 32, 2, 2, 64}, Shape{1, 33, 4, 2, 64, true}, Shape{2, 50, 2, 2, 80},
                      Shape{1, 70, 3, 1, 40, true}, Shape{1, 577, 2, 2, 64},
                      Shape{1, 600, 4, 1, 128, true}, Shape{1, 530, 1, 1, 72, true},
                      Shape{1, 1100, 1, 1, 256, true}, Shape{1, 1, 1, 1, 24, true, 4},
                      Shape{2, 90, 2, 1, 64, true, 1}, Shape{1, 200, 2, 2, 32, true, 33},
                      Shape{1, 700, 2, 1, 64, true, 600}, Shape{1, 700, 1, 1, 64, true, 5000},
                      Shape{1, 600, 1, 1, 64, false, 0, 40},
                      Shape{1, 1200, 1, 1, 64, true, 0, 40}));

class WholeAttentionValues : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_whole_attention()) GTEST_SKIP() << "libtorch's is taken on this processor";
  }
};

TEST_F(WholeAttentionValues, what_is_no_number_stays_with_those_who_see_it) {
  Case c({1, 100, 1, 1, 64, true});
  c.qkv_[static_cast<size_t>(40 * c.args_.k_stride + c.args_.heads * 64 + 3)] = 0x7FC0;
  const std::vector<uint16_t> got = c.solve(0, 1);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(std::isnan(widen(got[i])), i / 64 >= 40) << "row " << i / 64;
  }
}

// Across the parts that keys are met in.
TEST_F(WholeAttentionValues, a_window_ends_where_it_ends) {
  using Window = std::pair<int64_t, int64_t>;
  for (const auto& [rows, window] :
       {Window{700, 600}, Window{1200, 0}, Window{1200, 513}, Window{1100, 32}, Window{640, 64}}) {
    for (const int64_t marked : {int64_t{0}, int64_t{31}, int64_t{511}, int64_t{512}, rows - 1}) {
      Case c({1, rows, 1, 1, 64, true, window});
      c.qkv_[static_cast<size_t>(marked * c.args_.k_stride + 64)] = 0x7FC0;  // a key
      const std::vector<uint16_t> got = c.solve(0, 1);
      for (int64_t row = 0; row < rows; ++row) {
        const bool sees = row >= marked && (window == 0 || row < marked + window);
        ASSERT_EQ(std::isnan(widen(got[static_cast<size_t>(row * 64)])), sees)
            << "row " << row << " of " << rows << ", window " << window << ", key " << marked;
      }
    }
  }
}

TEST_F(WholeAttentionValues, large_scores_do_not_overflow) {
  Case c({1, 64, 1, 1, 64});
  for (uint16_t& value : c.qkv_) narrow(widen(value) * 1e4F, &value);
  for (const uint16_t value : c.solve(0, 1)) EXPECT_TRUE(std::isfinite(widen(value)));
}

TEST_F(WholeAttentionValues, no_rows_are_no_work) {
  WholeAttentionArgs args;
  whole_attention_cpu(args);
}

}  // namespace
}  // namespace vlm
