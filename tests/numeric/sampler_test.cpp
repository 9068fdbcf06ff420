// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace vlm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

at::Tensor rows(const std::vector<std::vector<float>>& values) {
  std::vector<float> flat;
  for (const auto& row : values) flat.insert(flat.end(), row.begin(), row.end());
  return at::tensor(flat, at::kFloat)
      .view({static_cast<int64_t>(values.size()), static_cast<int64_t>(values[0].size())});
}

std::vector<Chosen> choose_tokens(const at::Tensor& logits, const std::vector<Choice>& choices) {
  return Sampler(logits.size(0), logits.device()).choose(logits, choices);
}

Choice greedy(int64_t row) {
  Choice choice;
  choice.first_row = row;
  return choice;
}

Choice sampling(int64_t row, uint64_t seed) {
  Choice choice = greedy(row);
  choice.sample = true;
  choice.seed = seed;
  return choice;
}

int64_t token_of(const at::Tensor& logits, const Choice& choice) {
  const auto chosen = choose_tokens(logits, {choice});
  return chosen[0].candidates.empty() ? -1 : chosen[0].candidates[0].token;
}

std::map<int64_t, double> frequencies(const at::Tensor& logits, Choice choice, int draws) {
  std::map<int64_t, double> counts;
  for (int i = 0; i < draws; ++i) {
    choice.sequence = static_cast<uint64_t>(i);
    counts[token_of(logits, choice)] += 1.0 / draws;
  }
  return counts;
}

TEST(Sampler, greedy_takes_the_best_and_reports_its_raw_logprob) {
  const at::Tensor logits = rows({{1, 3, 2}, {0, -1, 5}});
  const auto chosen = choose_tokens(logits, {greedy(0), greedy(1)});
  EXPECT_EQ(chosen[0].candidates[0].token, 1);
  EXPECT_EQ(chosen[1].candidates[0].token, 2);
  const double total = std::exp(1.0) + std::exp(3.0) + std::exp(2.0);
  EXPECT_NEAR(chosen[0].candidates[0].logprob, 3.0 - std::log(total), 1e-6);
}

TEST(Sampler, repetition_penalty_divides_positive_and_multiplies_negative_scores) {
  Choice choice = greedy(0);
  choice.repetition_penalty = 2;
  choice.seen = {{0}};
  EXPECT_EQ(token_of(rows({{3, 2, 1}}), choice), 1);
  EXPECT_EQ(token_of(rows({{-1, -1.5f, -3}}), choice), 1);
  EXPECT_EQ(token_of(rows({{5, 2, 1}}), choice), 0);
}

TEST(Sampler, banned_ids_are_never_chosen) {
  Choice choice = greedy(0);
  choice.banned = {{2, 0}};
  EXPECT_EQ(token_of(rows({{9, 1, 8}}), choice), 1);
}

TEST(Sampler, nothing_is_chosen_where_no_score_is_finite) {
  Choice all_banned = greedy(0);
  all_banned.banned = {{0, 1}};
  EXPECT_EQ(token_of(rows({{1, 2}}), all_banned), -1);
  EXPECT_EQ(token_of(rows({{NAN, 2}}), greedy(0)), -1);
  EXPECT_EQ(token_of(rows({{kInfinity, 2}}), greedy(0)), -1);
  all_banned.sample = true;
  EXPECT_EQ(token_of(rows({{1, 2}}), all_banned), -1);
  EXPECT_EQ(token_of(rows({{NAN, 2}}), sampling(0, 1)), -1);
  EXPECT_EQ(token_of(rows({{kInfinity, 2}}), sampling(0, 1)), -1);
  EXPECT_EQ(token_of(rows({{-kInfinity, -kInfinity}}), sampling(0, 1)), -1);
}

TEST(Sampler, a_row_does_not_depend_on_its_neighbours) {
  const at::Tensor logits = rows({{1, 2, 3, 0}, {2, 2, 2, 2}, {0, 1, 0, 1}});
  std::vector<Choice> batch = {sampling(0, 5), greedy(1), sampling(2, 9)};
  batch[0].top_k = 2;
  batch[1].banned = {{0, 1}};
  batch[2].top_p = 0.9;
  const auto together = choose_tokens(logits, batch);
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto alone = choose_tokens(logits, {batch[i]});
    EXPECT_EQ(together[i].candidates[0].token, alone[0].candidates[0].token);
  }
}

TEST(Sampler, draws_follow_the_softmax) {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, -1.0f};
  const auto found = frequencies(rows({logits}), sampling(0, 1), 20000);
  double total = 0;
  for (float logit : logits) total += std::exp(static_cast<double>(logit));
  for (int64_t id = 0; id < 4; ++id) {
    const double wanted = std::exp(static_cast<double>(logits[static_cast<size_t>(id)])) / total;
    EXPECT_NEAR(found.at(id), wanted, 5 * std::sqrt(wanted * (1 - wanted) / 20000)) << id;
  }
}

TEST(Sampler, temperature_sharpens) {
  Choice choice = sampling(0, 3);
  choice.temperature = 0.01;
  EXPECT_NEAR(frequencies(rows({{1, 1.5f, 1.2f}}), choice, 200).at(1), 1.0, 1e-9);
}

TEST(Sampler, top_k_keeps_ties_with_the_last) {
  Choice choice = sampling(0, 4);
  choice.top_k = 2;
  const auto found = frequencies(rows({{3, 2, 2, 1}}), choice, 2000);
  EXPECT_EQ(found.size(), 3u);
  EXPECT_EQ(found.count(3), 0u);
}

TEST(Sampler, top_p_keeps_the_smallest_set_that_reaches_p) {
  const at::Tensor logits = at::tensor({0.5, 0.3, 0.15, 0.05}).log().to(at::kFloat).unsqueeze(0);
  Choice choice = sampling(0, 6);
  choice.top_p = 0.7;
  EXPECT_EQ(frequencies(logits, choice, 2000).size(), 2u);
  choice.top_p = 0.81;
  EXPECT_EQ(frequencies(logits, choice, 4000).size(), 3u);
  choice.top_p = 1e-6;
  EXPECT_EQ(frequencies(logits, choice, 100).size(), 1u);
}

TEST(Sampler, min_p_is_relative_to_the_likeliest) {
  const at::Tensor logits = at::tensor({0.5, 0.3, 0.15, 0.05}).log().to(at::kFloat).unsqueeze(0);
  Choice choice = sampling(0, 7);
  choice.min_p = 0.25;
  const auto found = frequencies(logits, choice, 4000);
  EXPECT_EQ(found.size(), 3u);
  EXPECT_EQ(found.count(3), 0u);
}

TEST(Sampler, scores_that_no_number_holds_once_divided_give_no_token) {
  Choice choice = greedy(0);
  choice.sample = true;
  choice.temperature = 1e-40;
  EXPECT_EQ(token_of(rows({{1, 2, 3}}), choice), -1);
}

TEST(Sampler, beams_take_the_best_over_all_rows_in_order) {
  const at::Tensor logits = rows({{0, 1, 2}, {3, 0, 0}});
  Choice choice;
  choice.rows = 2;
  choice.beams = true;
  choice.running_scores = {-1.0f, -2.0f};
  choice.candidates = 4;
  const auto chosen = choose_tokens(logits, {choice})[0].candidates;
  ASSERT_EQ(chosen.size(), 4u);
  const at::Tensor wanted =
      at::log_softmax(logits, -1) + at::tensor({-1.0f, -2.0f}, at::kFloat).unsqueeze(1);
  for (size_t i = 0; i < chosen.size(); ++i) {
    EXPECT_NEAR(chosen[i].score, wanted[chosen[i].row][chosen[i].token].item().toFloat(), 1e-6);
    if (i > 0) {
      EXPECT_GE(chosen[i - 1].score, chosen[i].score);
    }
  }
  EXPECT_EQ(chosen[0].row, 0);
  EXPECT_EQ(chosen[0].token, 2);
}

TEST(Sampler, equal_beam_scores_come_by_index) {
  Choice choice;
  choice.rows = 2;
  choice.beams = true;
  choice.running_scores = {0, 0};
  choice.candidates = 4;
  const auto chosen = choose_tokens(rows({{1, 1}, {1, 1}}), {choice})[0].candidates;
  ASSERT_EQ(chosen.size(), 4u);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(chosen[static_cast<size_t>(i)].row * 2 + chosen[static_cast<size_t>(i)].token, i);
  }
}

TEST(Sampler, sampled_beams_are_distinct_and_follow_the_softmax_first) {
  Choice choice;
  choice.beams = true;
  choice.sample = true;
  choice.running_scores = {0};
  choice.candidates = 2;
  choice.seed = 11;
  const at::Tensor logits = rows({{0.0f, 1.0f, 2.0f}});
  std::map<int64_t, double> first;
  for (int i = 0; i < 10000; ++i) {
    choice.sequence = static_cast<uint64_t>(i);
    const auto chosen = choose_tokens(logits, {choice})[0].candidates;
    ASSERT_NE(chosen[0].token, chosen[1].token);
    first[chosen[0].token] += 1e-4;
  }
  const double total = 1 + std::exp(1.0) + std::exp(2.0);
  EXPECT_NEAR(first[2], std::exp(2.0) / total, 0.025);
  EXPECT_NEAR(first[0], 1 / total, 0.02);
}

}  // namespace
}  // namespace vlm
