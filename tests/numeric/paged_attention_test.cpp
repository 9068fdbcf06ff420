// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/paged_attention.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "cuda/attention_index.h"
#include "decoder/attention.h"
#include "numeric/attention_case.h"

namespace vlm {
namespace {

float largest(const std::vector<float>& values) {
  float top = 0;
  for (float value : values) top = std::max(top, std::abs(value));
  return top;
}

void expect_close(const std::vector<float>& got, const std::vector<float>& wanted, float relative) {
  ASSERT_EQ(got.size(), wanted.size());
  const float limit = relative * largest(wanted);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], limit) << "element " << i;
}

class PagedAttention : public ::testing::TestWithParam<AttentionShape> {};

TEST_P(PagedAttention, cpu_kernel_equals_the_reference) {
  AttentionCase c(GetParam());
  PagedAttentionArgs args = c.args();
  std::vector<float> wanted(c.q.size()), got(c.q.size());
  args.out = wanted.data();
  paged_attention_reference(args);
  args.out = got.data();
  paged_attention_cpu(args);
  expect_close(got, wanted, 1e-5f);
}

TEST_P(PagedAttention, bfloat16_kernel_equals_the_reference_on_rounded_inputs) {
  AttentionCase c(GetParam());
  c.round_to_bfloat16();
  PagedAttentionArgs args = c.args();
  std::vector<float> wanted(c.q.size());
  args.out = wanted.data();
  paged_attention_reference(args);
  const auto q = narrow_to_bfloat16(c.q), k = narrow_to_bfloat16(c.k), v = narrow_to_bfloat16(c.v);
  std::vector<uint16_t> narrow(c.q.size());
  args.q = q.data();
  args.k_cache = k.data();
  args.v_cache = v.data();
  args.out = narrow.data();
  args.type = KernelType::kBFloat16;
  paged_attention_cpu(args);
  expect_close(widen_bfloat16(narrow), wanted, 1.0f / 128);
}

// As callers do that share out the work themselves.
TEST_P(PagedAttention, heads_do_not_depend_on_those_taken_with_them) {
  AttentionCase c(GetParam());
  const auto q = narrow_to_bfloat16(c.q), k = narrow_to_bfloat16(c.k), v = narrow_to_bfloat16(c.v);
  std::vector<uint16_t> whole(c.q.size()), parts(c.q.size());
  PagedAttentionArgs args = c.args();
  args.q = q.data();
  args.k_cache = k.data();
  args.v_cache = v.data();
  args.type = KernelType::kBFloat16;
  AttentionScratch scratch;
  for (int64_t row = 0; row < args.rows; ++row) {
    args.out = whole.data();
    paged_attention_part(args, row, 0, args.kv_heads, scratch);
    args.out = parts.data();
    for (int64_t head = 0, count = 1; head < args.kv_heads; head += count, count = 2) {
      paged_attention_part(args, row, head, std::min(count, args.kv_heads - head), scratch);
    }
  }
  EXPECT_EQ(whole, parts);
}

// kv heads at once of rows of these lengths.
int64_t at_once(const std::vector<int32_t>& lengths, int64_t kv_heads, int threads,
                int64_t window = 0) {
  PagedAttentionArgs args;
  args.lengths = lengths.data();
  args.rows = static_cast<int64_t>(lengths.size());
  args.kv_heads = kv_heads;
  args.window = window;
  return kv_heads_at_once(args, threads);
}

TEST(AttentionParts, rows_are_cut_as_little_as_gives_all_threads_work) {
  EXPECT_EQ(at_once({100}, 8, 1), 8);
  EXPECT_EQ(at_once({100}, 8, 2), 4);
  EXPECT_EQ(at_once({100}, 8, 64), 1);
  EXPECT_EQ(at_once({100, 100}, 8, 2), 8);
  EXPECT_EQ(at_once({100, 100, 100}, 8, 2), 4);
  EXPECT_EQ(at_once(std::vector<int32_t>(64, 100), 8, 2), 8);
  // Two rounds of five for four threads would be three idle in the second.
  EXPECT_EQ(at_once(std::vector<int32_t>(5, 100), 8, 4), 4);
}

TEST(AttentionParts, a_long_row_is_cut_for_all_threads) {
  EXPECT_EQ(at_once({30000, 50, 50, 50}, 8, 4), 2);
  EXPECT_EQ(at_once({30000, 50, 50, 50}, 8, 4, 50), 8);
}

TEST_P(PagedAttention, generic_operations_equal_the_reference) {
  AttentionCase c(GetParam());
  PagedAttentionArgs args = c.args();
  std::vector<float> wanted(c.q.size());
  args.out = wanted.data();
  paged_attention_reference(args);
  const AttentionShape& s = c.shape;
  const auto floats = [](std::vector<float>& data, at::IntArrayRef sizes) {
    return at::from_blob(data.data(), sizes, at::kFloat);
  };
  CachedRows cached;
  cached.slot_table = at::from_blob(c.table.data(), {s.rows, c.stride}, at::kInt);
  cached.lengths = at::from_blob(c.lengths.data(), {s.rows}, at::kInt);
  cached.longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  TextConfig config;
  config.heads = s.heads;
  config.kv_heads = s.kv_heads;
  config.head_dim = s.head_dim;
  config.sliding_window = s.window;
  const at::Tensor out =
      cached_attention_generic(config, floats(c.q, {s.rows, s.heads, s.head_dim}),
                               floats(c.k, {c.slots, s.kv_heads, s.head_dim}),
                               floats(c.v, {c.slots, s.kv_heads, s.head_dim}), cached)
          .contiguous();
  const auto* data = out.const_data_ptr<float>();
  expect_close(std::vector<float>(data, data + out.numel()), wanted, 1e-5f);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttention, ::testing::ValuesIn(attention_shapes()));

TEST(AttentionIndex, offsets_stay_exact_beyond_32_bits) {
  EXPECT_EQ(cache_offset(2'000'000'000, 7, 8, 128), (2'000'000'000LL * 8 + 7) * 128);
  EXPECT_EQ(head_offset(70'000, 31, 32, 256), (70'000LL * 32 + 31) * 256);
}

TEST(AttentionIndex, query_heads_share_kv_heads_in_order) {
  EXPECT_EQ(kv_head_of(0, 8, 2), 0);
  EXPECT_EQ(kv_head_of(3, 8, 2), 0);
  EXPECT_EQ(kv_head_of(4, 8, 2), 1);
  EXPECT_EQ(kv_head_of(7, 8, 8), 7);
}

TEST(AttentionIndex, the_window_hides_what_is_older) {
  EXPECT_EQ(first_visible(10, 0), 0);
  EXPECT_EQ(first_visible(10, 10), 0);
  EXPECT_EQ(first_visible(10, 4), 6);
}

}  // namespace
}  // namespace vlm
