// SPDX-License-Identifier: LGPL-2.1-or-later
// Tokens chosen on the GPU against the sampler on the CPU, over odd shapes.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "decoder/sample_table.h"
#include "gpu/gpu_case.h"
#include "sampler/sampler.h"

namespace vlm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Sampled {
  std::vector<int64_t> tokens;
  std::vector<float> logprobs;
};

// A step on the device, which may go on from what it chose.
class Device {
 public:
  Device(int64_t rows, int64_t vocab)
      : rows_(rows),
        table_(rows, vocab, resolve_device("cuda")),
        tokens_(to_gpu(at::full({rows}, -7, at::kLong))),
        logprobs_(to_gpu(at::full({rows}, -7, at::kFloat))),
        fields_(to_gpu(at::full({4, rows}, 0, at::kLong))),
        lengths_(to_gpu(at::full({rows}, 0, at::kInt))),
        slots_(to_gpu(at::full({rows, 64}, 0, at::kInt))),
        upcoming_(to_gpu(at::full({rows}, 5, at::kInt))) {}

  bool fill(const std::vector<Choice>& choices) { return table_.fill(choices, rows_); }

  Sampled sample(const at::Tensor& logits) {
    const at::Tensor there = to_gpu(logits);
    SampleArgs args = table_.sample_args();
    args.logits = there.const_data_ptr<float>();
    args.tokens = tokens_.mutable_data_ptr<int64_t>();
    args.logprobs = logprobs_.mutable_data_ptr<float>();
    args.rows = rows_;
    EXPECT_TRUE(cuda_module()->sample(args, stream_of_tests()));
    const at::Tensor t = tokens_.cpu(), l = logprobs_.cpu();
    return {{t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + rows_},
            {l.const_data_ptr<float>(), l.const_data_ptr<float>() + rows_}};
  }

  void go_on() {
    AdvanceArgs args;
    table_.add_to(args);
    args.tokens = tokens_.const_data_ptr<int64_t>();
    args.upcoming = upcoming_.const_data_ptr<int32_t>();
    args.ids = fields_[0].mutable_data_ptr<int64_t>();
    args.positions = fields_[1].mutable_data_ptr<int64_t>();
    args.lengths = fields_[2].mutable_data_ptr<int64_t>();
    args.slots = fields_[3].mutable_data_ptr<int64_t>();
    args.cached_lengths = lengths_.mutable_data_ptr<int32_t>();
    args.slot_table = slots_.mutable_data_ptr<int32_t>();
    args.table_stride = 64;
    args.rows = rows_;
    EXPECT_TRUE(cuda_module()->advance(args, stream_of_tests()));
  }

 private:
  int64_t rows_;
  SampleTable table_;
  at::Tensor tokens_, logprobs_, fields_, lengths_, slots_, upcoming_;
};

Choice draw(uint64_t sequence) {
  Choice choice;
  choice.sample = true;
  choice.seed = 20261127;
  choice.sequence = sequence;
  return choice;
}

// One of every kind, then again.
std::vector<Choice> choices(int64_t rows, int64_t vocab) {
  std::vector<Choice> all;
  for (int64_t row = 0; row < rows; ++row) {
    Choice choice = draw(static_cast<uint64_t>(row));
    choice.sample = row % 5 != 0;
    if (row % 3 == 0) choice.temperature = 0.6;
    if (row % 5 == 2) choice.top_k = 20;
    if (row % 5 >= 3) choice.top_p = 0.9003;
    if (row % 5 == 4) choice.top_k = 50;
    if (row % 7 == 6) choice.min_p = 0.0502;
    if (row % 4 == 1) {
      choice.repetition_penalty = row % 8 == 1 ? 1.3 : 0.8;
      choice.seen = {{}};
      for (int64_t id = row % 3; id < vocab; id += 3) choice.seen[0].push_back(id);
    }
    if (row % 6 == 5 && vocab > 4) choice.banned = {{0, vocab - 1}};
    choice.first_row = row;
    all.push_back(choice);
  }
  return all;
}

// Exponentials of the GPU are not the CPU's: a draw may fall between two sums.
void expect_as_the_sampler(const at::Tensor& logits, const std::vector<Choice>& all,
                           const Sampled& got) {
  const std::vector<Chosen> wanted = Sampler(logits.size(0), at::kCPU).choose(logits, all);
  size_t other = 0;
  for (size_t row = 0; row < all.size(); ++row) {
    const auto& candidates = wanted[row].candidates;
    ASSERT_EQ(candidates.empty(), !std::isfinite(got.logprobs[row])) << row;
    if (candidates.empty()) continue;
    if (got.tokens[row] != candidates[0].token) {
      EXPECT_TRUE(all[row].sample) << row;
      ++other;
    } else {
      EXPECT_NEAR(got.logprobs[row], candidates[0].logprob, 1e-4) << row;
    }
  }
  EXPECT_LE(other, all.size() / 50);
}

TEST(GpuSample, chooses_as_the_sampler_does_in_every_way) {
  for (const int64_t vocab : {1, 7, 33, 1000, 32001, 50257, 128256}) {
    for (const int64_t rows : {1, 5, 64}) {
      SCOPED_TRACE(std::to_string(vocab) + " × " + std::to_string(rows));
      const at::Tensor logits = random_values({rows, vocab}, at::kFloat, 3);
      const std::vector<Choice> all = choices(rows, vocab);
      Device device(rows, vocab);
      ASSERT_TRUE(device.fill(all));
      expect_as_the_sampler(logits, all, device.sample(logits));
    }
  }
}

TEST(GpuSample, gives_a_row_the_same_alone_and_again) {
  constexpr int64_t kRows = 40, kVocab = 32064;
  const at::Tensor logits = (random_values({kRows, kVocab}, at::kFloat, 12)).round() / 4;
  std::vector<Choice> all = choices(kRows, kVocab);
  Device device(kRows, kVocab);
  ASSERT_TRUE(device.fill(all));
  const Sampled first = device.sample(logits), again = device.sample(logits);
  EXPECT_EQ(first.tokens, again.tokens);
  EXPECT_EQ(first.logprobs, again.logprobs);
  for (size_t row = 0; row < all.size(); ++row) {
    Device alone(1, kVocab);
    all[row].first_row = 0;
    ASSERT_TRUE(alone.fill({all[row]}));
    const Sampled one = alone.sample(logits[static_cast<int64_t>(row)].unsqueeze(0));
    EXPECT_EQ(one.tokens[0], first.tokens[row]) << row;
    EXPECT_EQ(one.logprobs[0], first.logprobs[row]) << row;
  }
}

TEST(GpuSample, goes_on_with_what_was_chosen) {
  constexpr int64_t kRows = 9, kVocab = 1000;
  std::vector<Choice> all = choices(kRows, kVocab);
  for (Choice& choice : all) {
    choice.repetition_penalty = 1.4;
    choice.seen.resize(1);
  }
  Device device(kRows, kVocab);
  ASSERT_TRUE(device.fill(all));
  for (int step = 0; step < 20; ++step) {
    SCOPED_TRACE(step);
    const at::Tensor logits = random_values({kRows, kVocab}, at::kFloat, 3);
    const Sampled got = device.sample(logits);
    expect_as_the_sampler(logits, all, got);
    device.go_on();
    for (size_t row = 0; row < all.size(); ++row) {
      ++all[row].token;
      std::vector<int64_t>& seen = all[row].seen[0];
      if (std::find(seen.begin(), seen.end(), got.tokens[row]) == seen.end()) {
        seen.push_back(got.tokens[row]);
      }
    }
  }
}

TEST(GpuSample, draws_follow_the_probabilities) {
  constexpr int64_t kDraws = 20000;
  const std::vector<float> row = {0.5f, -kInfinity, 2.0f, -1.0f, 1.25f, -60.0f};
  const at::Tensor logits = at::tensor(row, at::kFloat).repeat({kDraws, 1});
  std::vector<Choice> all;
  for (int64_t i = 0; i < kDraws; ++i) {
    all.push_back(draw(static_cast<uint64_t>(i)));
    all.back().first_row = i;
  }
  Device device(kDraws, 6);
  ASSERT_TRUE(device.fill(all));
  const Sampled got = device.sample(logits);
  double total = 0;
  for (const float logit : row) total += std::exp(static_cast<double>(logit));
  for (int64_t id = 0; id < 6; ++id) {
    const double p = std::exp(static_cast<double>(row[static_cast<size_t>(id)])) / total;
    const auto found = std::count(got.tokens.begin(), got.tokens.end(), id);
    EXPECT_NEAR(static_cast<double>(found), kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << id;
  }
}

TEST(GpuSample, tells_where_there_is_nothing_to_choose) {
  at::Tensor logits = at::full({4, 64}, 1, at::kFloat);
  logits[0][13] = std::numeric_limits<float>::quiet_NaN();
  logits[1].fill_(-kInfinity);
  logits[2].fill_(-kInfinity);
  logits[2][5] = 0;
  logits[3][63] = kInfinity;
  std::vector<Choice> all = {draw(0), draw(1), draw(2), draw(3)};
  for (int64_t row = 0; row < 4; ++row) all[static_cast<size_t>(row)].first_row = row;
  all[2].banned = {{5}};
  for (const bool sample : {true, false}) {
    for (Choice& choice : all) choice.sample = sample;
    Device device(4, 64);
    ASSERT_TRUE(device.fill(all));
    const Sampled got = device.sample(logits);
    for (const float logprob : got.logprobs) EXPECT_FALSE(std::isfinite(logprob));
    for (const int64_t token : got.tokens) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 64);
    }
  }
}

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  return vlm::run_gpu_tests(argc, argv);
}
