// SPDX-License-Identifier: LGPL-2.1-or-later
// What the GPU computes element by element, against the CPU's own way.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "gpu/gpu_case.h"
#include "kernels/activation.h"
#include "kernels/fused.h"

namespace vlm {
namespace {

class GpuElementwise : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(GpuElementwise, add_norm_equals_the_cpu) {
  for (const auto& [rows, size] : std::initializer_list<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 7}, {5, 256}, {2, 4097}, {700, 384}}) {
    const at::Tensor x = random_values({rows, size}, GetParam());
    const at::Tensor delta = random_values({rows, size}, GetParam());
    const at::Tensor weight = random_values({size}, GetParam());
    const Normed wanted = add_norm(x, delta, weight, 1e-5);
    const Normed got = add_norm(to_gpu(x), to_gpu(delta), to_gpu(weight), 1e-5);
    expect_close(got.sum, wanted.sum, 0, 0);
    expect_close(got.normed, wanted.normed, 2, 1e-6);
    expect_close(rms_norm(to_gpu(x), to_gpu(weight), 1e-5), rms_norm(x, weight, 1e-5), 2, 1e-6);
  }
}

TEST_P(GpuElementwise, gated_equals_the_cpu_for_every_function_and_stride) {
  for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
                                      Activation::kQuickGelu, Activation::kRelu}) {
    for (const int64_t size : {1, 7, 64, 1000, 1024}) {
      const at::Tensor both = random_values({3, 2 * size}, GetParam());
      const auto wanted =
          activate(both.narrow(1, 0, size), activation) * both.narrow(1, size, size);
      const at::Tensor there = to_gpu(both);
      expect_close(gated(there.narrow(1, 0, size), there.narrow(1, size, size), activation), wanted,
                   2, 1e-6);
    }
  }
}

TEST_P(GpuElementwise, rotate_store_equals_rotation_and_copy) {
  TextConfig config;
  config.heads = 6;
  config.kv_heads = 2;
  for (const int64_t dim : {2, 20, 64, 80, 128}) {
    config.head_dim = dim;
    constexpr int64_t kRows = 5, kSlots = 11;
    const at::Tensor all = random_values({kRows, 10 * dim}, GetParam());
    const at::Tensor cos = random_values({9, 1, dim}, GetParam());
    const at::Tensor sin = random_values({9, 1, dim}, GetParam());
    const at::Tensor angles = at::randint(9, {kRows}, at::kLong);
    const at::Tensor slots = at::tensor({7, 0, 10, 3, 5}, at::kLong);
    const auto part = [&](const at::Tensor& from, int64_t first, int64_t count) {
      return from.narrow(1, first * dim, count * dim).view({kRows, count, dim});
    };
    const auto turned = [&](const at::Tensor& x) {
      return rotate(x, cos.index_select(0, angles), sin.index_select(0, angles));
    };
    const at::Tensor there = to_gpu(all);
    const at::Tensor keys = to_gpu(at::full({kSlots, 2, dim}, 5, GetParam()));
    const at::Tensor values = to_gpu(at::full({kSlots, 2, dim}, 5, GetParam()));
    const at::Tensor c = to_gpu(cos), s = to_gpu(sin), a = to_gpu(angles), n = to_gpu(slots);
    ASSERT_TRUE(gpu_rotate_store(part(there, 0, 6), part(there, 6, 2), part(there, 8, 2),
                                 rotate_target(config, c, s, a, n, keys, values)));
    const at::Tensor k = turned(part(all, 6, 2));
    expect_close(part(there, 0, 6), turned(part(all, 0, 6)), 1, 1e-6);
    expect_close(part(there, 6, 2), k, 1, 1e-6);
    expect_close(keys.index_select(0, n), k, 1, 1e-6);
    expect_close(values.index_select(0, n), part(all, 8, 2), 0, 0);
    const at::Tensor untouched = to_gpu(at::tensor({1, 2, 4, 6, 8, 9}, at::kLong));
    EXPECT_TRUE((keys.index_select(0, untouched) == 5).all().item<bool>());
    EXPECT_TRUE((values.index_select(0, untouched) == 5).all().item<bool>());
  }
}

TEST_P(GpuElementwise, embed_takes_rows_of_the_table) {
  const at::Tensor table = random_values({50, 33}, GetParam());
  const at::Tensor ids = at::tensor({49, 0, 7, 7}, at::kLong);
  const at::Tensor there = to_gpu(table), its = to_gpu(ids);
  const at::Tensor out = to_gpu(at::zeros({4, 33}, GetParam()));
  EmbedArgs args;
  args.table = there.const_data_ptr();
  args.ids = its.const_data_ptr<int64_t>();
  args.out = out.mutable_data_ptr();
  args.rows = 4;
  args.size = 33;
  args.type = *kernel_type(GetParam());
  ASSERT_TRUE(cuda_module()->embed(args, stream_of_tests()));
  expect_close(out, table.index_select(0, ids), 0, 0);
}

INSTANTIATE_TEST_SUITE_P(Types, GpuElementwise,
                         ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16));

struct Picked {
  std::vector<int64_t> tokens;
  std::vector<float> logprobs;
};

Picked pick(const at::Tensor& logits, const std::vector<int64_t>& banned, int64_t banned_size) {
  const int64_t rows = logits.size(0);
  const at::Tensor there = to_gpu(logits);
  const at::Tensor bans = to_gpu(at::tensor(banned, at::kLong));
  const at::Tensor tokens = to_gpu(at::full({rows}, -7, at::kLong));
  const at::Tensor logprobs = to_gpu(at::full({rows}, -7, at::kFloat));
  PickArgs args;
  args.logits = there.const_data_ptr<float>();
  args.banned = bans.const_data_ptr<int64_t>();
  args.banned_size = banned_size;
  args.tokens = tokens.mutable_data_ptr<int64_t>();
  args.logprobs = logprobs.mutable_data_ptr<float>();
  args.rows = rows;
  args.vocab_size = logits.size(1);
  EXPECT_TRUE(cuda_module()->pick(args, stream_of_tests()));
  const at::Tensor t = tokens.cpu(), l = logprobs.cpu();
  return {{t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + rows},
          {l.const_data_ptr<float>(), l.const_data_ptr<float>() + rows}};
}

TEST(GpuPick, is_the_likeliest_with_its_log_probability) {
  for (const int64_t vocab : {1, 31, 1000, 32064}) {
    const at::Tensor logits = random_values({5, vocab}, at::kFloat, 4);
    const at::Tensor logprobs = at::log_softmax(logits.to(at::kDouble), -1);
    const Picked picked = pick(logits, {}, 0);
    for (int64_t row = 0; row < 5; ++row) {
      EXPECT_EQ(picked.tokens[row], logits[row].argmax().item<int64_t>());
      EXPECT_NEAR(picked.logprobs[row], logprobs[row].max().item<double>(), 1e-4);
    }
  }
}

TEST(GpuPick, passes_over_what_is_banned_and_takes_the_first_of_equals) {
  at::Tensor logits = at::zeros({3, 100}, at::kFloat);
  logits.select(1, 40).fill_(9);
  logits.select(1, 70).fill_(5);
  logits.select(1, 30).fill_(5);
  const Picked picked = pick(logits, {40, -1, 40, 30, -1, -1}, 2);
  EXPECT_EQ(picked.tokens, (std::vector<int64_t>{30, 70, 40}));
  const at::Tensor logprobs = at::log_softmax(logits[0].to(at::kDouble), -1);
  EXPECT_NEAR(picked.logprobs[0], logprobs[30].item<double>(), 1e-4);
  EXPECT_NEAR(picked.logprobs[2], logprobs[40].item<double>(), 1e-4);
}

TEST(GpuPick, tells_where_there_is_no_likeliest) {
  at::Tensor logits = at::zeros({3, 64}, at::kFloat);
  logits[0][13] = std::numeric_limits<float>::quiet_NaN();
  logits[1].fill_(-std::numeric_limits<float>::infinity());
  logits[2].fill_(-std::numeric_limits<float>::infinity());
  logits[2][5] = 0;
  const Picked picked = pick(logits, {-1, -1, 5}, 1);
  for (const float logprob : picked.logprobs) EXPECT_FALSE(std::isfinite(logprob));
}

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  return vlm::run_gpu_tests(argc, argv);
}
