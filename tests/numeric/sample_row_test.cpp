// SPDX-License-Identifier: LGPL-2.1-or-later
// How the GPU chooses tokens, thread by thread on the CPU, against the sampler.
#include "cuda/sample_row.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "decoder/sample_table.h"
#include "sampler/sampler.h"

namespace vlm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One thread after the other, in whatever order.
struct HostBlock {
  SampleShared* shared;
  std::vector<int> order;

  int threads() const { return static_cast<int>(order.size()); }

  template <typename Work>
  void phase(const Work& work) {
    for (const int thread : order) work(thread);
  }

  template <typename Value>
  void scan(const Value& value) {
    std::vector<uint64_t> values(order.size());
    for (const int thread : order) values[static_cast<size_t>(thread)] = value(thread);
    shared->prefix[0] = 0;
    std::partial_sum(values.begin(), values.end(), shared->prefix + 1);
  }
};

// All of them at once, as on a GPU: what would be a race there is one here.
struct Crowd {
  explicit Crowd(int threads) : sums(static_cast<size_t>(threads)), all(threads) {}

  std::vector<uint64_t> sums;
  std::barrier<> all;
};

struct OneOfCrowd {
  SampleShared* shared;
  Crowd* crowd;
  int thread;

  int threads() const { return static_cast<int>(crowd->sums.size()); }

  template <typename Work>
  void phase(const Work& work) {
    work(thread);
    crowd->all.arrive_and_wait();
  }

  template <typename Value>
  void scan(const Value& value) {
    crowd->sums[static_cast<size_t>(thread)] = value(thread);
    crowd->all.arrive_and_wait();
    if (thread == 0) shared->prefix[0] = 0;
    shared->prefix[thread + 1] =
        std::accumulate(crowd->sums.begin(), crowd->sums.begin() + thread + 1, uint64_t{0});
    crowd->all.arrive_and_wait();
  }
};

std::vector<int> in_turn(int threads) {
  std::vector<int> order(static_cast<size_t>(threads));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::vector<int> shuffled(int threads, uint32_t seed) {
  std::vector<int> order = in_turn(threads);
  std::mt19937 random(seed);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

struct Sampled {
  int64_t token = -7;
  float logprob = -7;
};

using Logits = std::vector<float>;

SampleArgs args_of(const Logits& logits, const SampleTable& table, Sampled& result) {
  SampleArgs args = table.sample_args();
  args.logits = logits.data();
  args.tokens = &result.token;
  args.logprobs = &result.logprob;
  args.rows = 1;
  return args;
}

Sampled sampled(const Logits& logits, const SampleTable& table, const std::vector<int>& order) {
  Sampled result;
  const SampleArgs args = args_of(logits, table, result);
  const auto shared = std::make_unique<SampleShared>();
  HostBlock block = {shared.get(), order};
  sample_row(block, *shared, args, 0);
  return result;
}

Sampled sampled(const Logits& logits, const Choice& choice, const std::vector<int>& order) {
  SampleTable table(1, static_cast<int64_t>(logits.size()), at::kCPU);
  EXPECT_TRUE(table.fill({choice}, 1));
  return sampled(logits, table, order);
}

Sampled sampled_at_once(const Logits& logits, const Choice& choice, int threads) {
  SampleTable table(1, static_cast<int64_t>(logits.size()), at::kCPU);
  EXPECT_TRUE(table.fill({choice}, 1));
  Sampled result;
  const SampleArgs args = args_of(logits, table, result);
  const auto shared = std::make_unique<SampleShared>();
  Crowd crowd(threads);
  std::vector<std::thread> running;
  for (int thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      OneOfCrowd block = {shared.get(), &crowd, thread};
      sample_row(block, *shared, args, 0);
    });
  }
  for (std::thread& one : running) one.join();
  return result;
}

Chosen wanted(const Logits& logits, const Choice& choice) {
  const at::Tensor row = at::from_blob(const_cast<float*>(logits.data()),
                                       {1, static_cast<int64_t>(logits.size())}, at::kFloat);
  return Sampler(1, at::kCPU).choose(row, {choice})[0];
}

// Takes out what top-p takes out; of equals, whose order the sampler leaves open, those with the
// lowest ids first.
void cut_nucleus(std::vector<float>& scores, double top_p) {
  const float top = *std::max_element(scores.begin(), scores.end());
  double total = 0, sum = 0;
  for (const float score : scores) total += std::exp(static_cast<double>(score - top));
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  order.pop_back();
  for (const size_t id : order) {
    sum += std::exp(static_cast<double>(scores[id] - top)) / total;
    if (static_cast<float>(sum) > static_cast<float>(1 - top_p)) return;
    scores[id] = -kInfinity;
  }
}

// A draw without penalty and bans, as plainly as possible.
int64_t plain_draw(std::vector<float> scores, const Choice& choice) {
  for (float& score : scores) score /= static_cast<float>(choice.temperature);
  if (choice.top_k > 0) {
    std::vector<float> best = scores;
    std::sort(best.begin(), best.end(), std::greater<>());
    const float last = best[std::min(best.size(), static_cast<size_t>(choice.top_k)) - 1];
    for (float& score : scores) score = score < last ? -kInfinity : score;
  }
  if (choice.top_p < 1) cut_nucleus(scores, choice.top_p);
  const float top = *std::max_element(scores.begin(), scores.end());
  std::vector<double> sums;
  double sum = 0;
  for (const float score : scores) {
    const bool counts = std::exp(score - top) >= static_cast<float>(choice.min_p);
    sums.push_back(sum += counts ? std::exp(static_cast<double>(score - top)) : 0);
  }
  const double point =
      sum * uniform_draw(choice.seed, choice.sequence, static_cast<uint32_t>(choice.token), 0);
  return std::upper_bound(sums.begin(), sums.end(), point) - sums.begin();
}

void expect_as_the_sampler(const Logits& logits, const Choice& choice,
                           const std::vector<int>& order) {
  const Sampled got = sampled(logits, choice, order);
  const Chosen chosen = wanted(logits, choice);
  ASSERT_EQ(chosen.candidates.empty(), !std::isfinite(got.logprob));
  ASSERT_GE(got.token, 0);
  ASSERT_LT(got.token, static_cast<int64_t>(logits.size()));
  if (chosen.candidates.empty()) return;
  EXPECT_EQ(got.token, chosen.candidates[0].token);
  EXPECT_NEAR(got.logprob, chosen.candidates[0].logprob,
              2e-6 * (1 + std::abs(chosen.candidates[0].logprob)));
}

Choice draw(uint64_t sequence) {
  Choice choice;
  choice.sample = true;
  choice.seed = 20261127;
  choice.sequence = sequence;
  choice.token = sequence % 5;
  return choice;
}

// What models give, and what they do not.
std::map<std::string, Logits> distributions(int64_t vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::map<std::string, Logits> all;
  Logits& plain = all["plain"];
  for (int64_t i = 0; i < vocab; ++i) plain.push_back(normal(random));
  Logits& ties = all["ties"];
  for (const float value : plain) ties.push_back(std::round(value * 4) / 4);
  Logits& peaked = all["peaked"] = plain;
  peaked[random() % peaked.size()] += 30;
  all["flat"] = Logits(static_cast<size_t>(vocab), -2.5f);
  Logits& few = all["few"] = Logits(static_cast<size_t>(vocab), -kInfinity);
  for (int i = 0; i < 3; ++i) few[random() % few.size()] = static_cast<float>(i);
  Logits& close = all["close"];
  for (const float value : plain) close.push_back(17 + value * 1e-6f);
  Logits& tiny = all["tiny"];
  for (const float value : plain) tiny.push_back(value * 1e-9f);
  return all;
}

std::map<std::string, Choice> warpers(int64_t vocab, uint64_t sequence) {
  std::map<std::string, Choice> all;
  const auto add = [&](const char* name) -> Choice& { return all[name] = draw(sequence); };
  add("plain");
  add("hot").temperature = 3.7;
  add("cold").temperature = 0.05;
  add("top one").top_k = 1;
  add("top fifty").top_k = 50;
  add("top more than there are").top_k = 2 * vocab + 3;
  add("nucleus").top_p = 0.9003;
  add("small nucleus").top_p = 1e-9;
  add("large nucleus").top_p = 0.99997;
  add("minimum").min_p = 0.0502;
  add("as good as the best").min_p = 1;
  Choice& both = add("both");
  both.top_k = 20;
  both.top_p = 0.7003;
  Choice& everything = add("everything");
  everything.temperature = 0.83;
  everything.top_k = 200;
  everything.top_p = 0.9503;
  everything.min_p = 0.0101;
  return all;
}

Choice penalised(Choice choice, int64_t vocab, double penalty) {
  choice.repetition_penalty = penalty;
  choice.seen = {{}};
  std::mt19937 random(5);
  for (int64_t id = 0; id < vocab; ++id) {
    if (random() % 3 == 0) choice.seen[0].push_back(id);
  }
  return choice;
}

class SampleRowOf : public ::testing::TestWithParam<int64_t> {};

TEST_P(SampleRowOf, draws_what_the_sampler_draws) {
  const int64_t vocab = GetParam();
  for (uint64_t round = 0; round < (vocab > 2000 ? 1 : 6); ++round) {
    for (const auto& [name, logits] : distributions(vocab, static_cast<uint32_t>(round))) {
      for (const auto& [way, choice] : warpers(vocab, round)) {
        SCOPED_TRACE(name + ", " + way + ", " + std::to_string(round));
        const std::vector<int> order = in_turn(round % 2 == 0 ? 1024 : 64);
        EXPECT_EQ(sampled(logits, choice, order).token, plain_draw(logits, choice));
        const bool equals = name == "ties" || name == "flat" || name == "close";
        if (equals && choice.top_p < 1) continue;
        expect_as_the_sampler(logits, choice, order);
        if (way != "everything") continue;
        expect_as_the_sampler(logits, penalised(choice, vocab, 1.3), in_turn(256));
        expect_as_the_sampler(logits, penalised(choice, vocab, 0.6), in_turn(256));
      }
    }
  }
}

TEST_P(SampleRowOf, takes_the_likeliest_with_penalty_and_bans) {
  const int64_t vocab = GetParam();
  for (const auto& [name, logits] : distributions(vocab, 77)) {
    SCOPED_TRACE(name);
    expect_as_the_sampler(logits, {}, in_turn(1024));
    expect_as_the_sampler(logits, penalised({}, vocab, 1.7), in_turn(1024));
    Choice banned;
    for (int64_t id = 0; id < std::min<int64_t>(vocab, kMostSampleBans); ++id) {
      const auto likeliest = std::max_element(logits.begin(), logits.end()) - logits.begin();
      if (banned.banned.empty()) banned.banned.push_back({likeliest});
      const int64_t other = (likeliest + 3 * id + 1) % vocab;
      if (banned.banned[0].size() < kMostSampleBans && other != likeliest) {
        banned.banned[0].push_back(other);
      }
    }
    expect_as_the_sampler(logits, banned, in_turn(1024));
    banned.sample = true;
    banned.top_k = 5;
    expect_as_the_sampler(logits, penalised(banned, vocab, 0.9), in_turn(1024));
  }
}

TEST_P(SampleRowOf, gives_the_same_whatever_threads_there_are_and_whoever_comes_first) {
  const int64_t vocab = GetParam();
  for (const auto& [name, logits] : distributions(vocab, 3)) {
    for (const auto& [way, choice] : warpers(vocab, 9)) {
      SCOPED_TRACE(name + ", " + way);
      const Sampled alone = sampled(logits, choice, in_turn(32));
      for (const int threads : {32, 64, 96, 256, 1024}) {
        const Sampled together = sampled(logits, choice, shuffled(threads, 1));
        EXPECT_EQ(together.token, alone.token);
        EXPECT_EQ(together.logprob, alone.logprob);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, SampleRowOf,
                         ::testing::Values(1, 7, 33, 1000, 1025, 32001, 50257, 128256));

std::map<int64_t, int> counts(const Logits& logits, Choice choice, int draws) {
  std::map<int64_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    choice.sequence = static_cast<uint64_t>(i);
    ++counts[sampled(logits, choice, in_turn(32)).token];
  }
  return counts;
}

TEST(SampleRow, threads_at_once_come_to_what_they_come_to_in_turn) {
  constexpr int64_t kVocab = 3001;
  for (const auto& [name, logits] : distributions(kVocab, 8)) {
    for (const auto& [way, choice] : warpers(kVocab, 2)) {
      SCOPED_TRACE(name + ", " + way);
      const Choice harder = penalised(choice, kVocab, 1.2);
      const Sampled in_order = sampled(logits, harder, in_turn(32));
      const Sampled at_once = sampled_at_once(logits, harder, 32);
      EXPECT_EQ(at_once.token, in_order.token);
      EXPECT_EQ(at_once.logprob, in_order.logprob);
    }
  }
}

TEST(SampleRow, draws_follow_the_probabilities) {
  const Logits logits = {0.5f, -kInfinity, 2.0f, -1.0f, 1.25f, -40.0f};
  constexpr int kDraws = 20000;
  Choice choice = draw(0);
  choice.temperature = 1.5;
  const auto found = counts(logits, choice, kDraws);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) / 1.5);
  for (const int64_t id : {0, 2, 3, 4}) {
    const double p = std::exp(logits[static_cast<size_t>(id)] / 1.5) / total;
    EXPECT_NEAR(found.at(id), kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << id;
  }
  EXPECT_EQ(found.count(1), 0u);
  EXPECT_EQ(found.count(5), 0u);
}

TEST(SampleRow, only_what_the_warpers_leave_is_drawn) {
  const Logits logits = {3, 2, 2, 1, 2};
  Choice choice = draw(0);
  choice.top_k = 2;
  EXPECT_EQ(counts(logits, choice, 2000).size(), 4u);  // with the ties
  choice.top_k = 0;
  choice.top_p = 0.6;  // the first has 0.45, the others 0.165 each and 0.06
  const auto found = counts(logits, choice, 2000);
  EXPECT_EQ(found.size(), 2u);
  EXPECT_EQ(found.count(4), 1u);  // of equals the last
  choice.top_p = 1;
  choice.min_p = 0.3;
  EXPECT_EQ(counts(logits, choice, 2000).size(), 4u);
  choice.min_p = 0.5;
  EXPECT_EQ(counts(logits, choice, 200).size(), 1u);
}

TEST(SampleRow, tells_where_there_is_nothing_to_choose) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Choice banned;
  banned.banned = {{0, 1}};
  Choice overflowing;
  overflowing.repetition_penalty = 1e-30;
  overflowing.seen = {{1}};
  for (const bool sample : {false, true}) {
    const auto logprob = [&](const Logits& logits, Choice choice) {
      choice.sample = sample;
      const Sampled got = sampled(logits, choice, in_turn(32));
      EXPECT_GE(got.token, 0);
      EXPECT_LT(got.token, static_cast<int64_t>(logits.size()));
      return got.logprob;
    };
    EXPECT_FALSE(std::isfinite(logprob({1, nan, 2}, {})));
    EXPECT_FALSE(std::isfinite(logprob({1, -nan, 2}, {})));
    EXPECT_FALSE(std::isfinite(logprob({1, kInfinity, 2}, {})));
    EXPECT_FALSE(std::isfinite(logprob({-kInfinity, -kInfinity}, {})));
    EXPECT_FALSE(std::isfinite(logprob({1, 2}, banned)));
    EXPECT_FALSE(std::isfinite(logprob({1, nan, -kInfinity}, banned)));
    EXPECT_FALSE(std::isfinite(logprob({1, 1e30f}, overflowing)));
    EXPECT_TRUE(std::isfinite(logprob({1, -kInfinity}, {})));
  }
}

TEST(SampleRow, goes_on_as_the_sampler_does_with_what_was_chosen) {
  constexpr int64_t kVocab = 1000;
  for (const bool sample : {false, true}) {
    Choice choice = draw(4);
    choice.sample = sample;
    choice.temperature = 0.7;
    choice.top_p = 0.95;
    choice.repetition_penalty = 1.4;
    choice.seen = {{3, 31, 32, 999}};
    SampleTable table(3, kVocab, at::kCPU);
    ASSERT_TRUE(table.fill({choice}, 2));
    for (uint32_t step = 0; step < 40; ++step) {
      SCOPED_TRACE(step);
      const Logits logits = distributions(kVocab, step / 4).at("plain");
      const Sampled got = sampled(logits, table, in_turn(1024));
      const Chosen chosen = wanted(logits, choice);
      ASSERT_EQ(got.token, chosen.candidates.at(0).token);
      ++choice.token;
      choice.seen[0].push_back(got.token);
      AdvanceArgs args;
      table.add_to(args);
      go_on_from(args.table[0], args.seen, got.token);
    }
  }
}

TEST(SampleTable, refuses_what_only_the_host_can_do) {
  const Choice plain = draw(1);
  EXPECT_TRUE(on_device(plain, 100));
  const auto refused = [&](const auto& change) {
    Choice choice = plain;
    change(choice);
    SampleTable table(2, 100, at::kCPU);
    return !on_device(choice, 100) && !table.fill({plain, choice}, 2);
  };
  EXPECT_TRUE(refused([](Choice& choice) { choice.beams = true; }));
  EXPECT_TRUE(refused([](Choice& choice) { choice.alternatives = 1; }));
  EXPECT_TRUE(refused([](Choice& choice) { choice.min_keep = 2; }));
  EXPECT_TRUE(refused([](Choice& choice) { choice.seen = {{100}}; }));
  EXPECT_TRUE(refused([](Choice& choice) { choice.banned = {{-1}}; }));
  EXPECT_TRUE(refused([](Choice& choice) { choice.banned = {{0, 1, 2, 3, 4, 5, 6, 7, 8}}; }));
  EXPECT_FALSE(on_device(plain, kMostSampledIds + 1));
}

TEST(SampleTable, rows_of_nobody_take_the_likeliest) {
  Choice choice = draw(1);
  choice.first_row = 1;
  SampleTable table(3, 50, at::kCPU);
  ASSERT_TRUE(table.fill({choice}, 3));
  const SampleRow* rows = table.sample_args().table;
  EXPECT_EQ(rows[0].sample, 0);
  EXPECT_EQ(rows[1].sample, 1);
  EXPECT_EQ(rows[2].sample, 0);
  EXPECT_EQ(rows[2].penalty, 1);
}

TEST(SampleOrder, is_that_of_the_numbers) {
  const std::vector<float> values = {-kInfinity, -3e38f, -1.5f, -1e-40f,  0.0f,
                                     1e-40f,     2.0f,   3e38f, kInfinity};
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(value_of(order_of(values[i])), values[i]);
    if (i > 0) {
      EXPECT_LT(order_of(values[i - 1]), order_of(values[i]));
    }
  }
  EXPECT_EQ(order_of(-0.0f), order_of(0.0f));
  EXPECT_GT(order_of(-std::numeric_limits<float>::quiet_NaN()), order_of(kInfinity));
}

}  // namespace
}  // namespace vlm
