// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/beam_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fake_model.h"
#include "sampler/generation.h"
#include "sampler/history.h"

namespace vlm {
namespace {

constexpr int64_t kEnd = 2;

/// Feeds candidates; token kEnd ends a text, `last` ends all.
std::vector<int64_t> feed(BeamSearch& search, const std::vector<Candidate>& candidates,
                          bool last = false) {
  std::vector<std::optional<FinishReason>> endings;
  for (const Candidate& candidate : candidates) {
    std::optional<FinishReason> ending;
    if (candidate.token == kEnd) {
      ending = FinishReason::kStop;
    } else if (last) {
      ending = FinishReason::kLength;
    }
    endings.push_back(ending);
  }
  return search.advance({candidates, {}}, endings);
}

BeamSettings settings(EarlyStopping early_stopping = EarlyStopping::kFalse,
                      double length_penalty = 1) {
  return {.num_beams = 2,
          .eos_ids = 1,
          .max_new_tokens = 10,
          .length_penalty = length_penalty,
          .early_stopping = early_stopping};
}

TEST(BeamSearch, asks_for_enough_to_survive_all_end_ids) {
  BeamSettings one = settings();
  EXPECT_EQ(BeamSearch(one).candidates(), 4);
  one.eos_ids = 3;
  EXPECT_EQ(BeamSearch(one).candidates(), 8);
  one.eos_ids = 0;
  EXPECT_EQ(BeamSearch(one).candidates(), 4);
}

TEST(BeamSearch, starts_with_one_row_and_goes_on_with_the_best) {
  BeamSearch search(settings());
  ASSERT_EQ(search.running().size(), 1u);
  EXPECT_EQ(search.running()[0].score, 0);
  EXPECT_EQ(feed(search, {{0, 7, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}}),
            (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(feed(search, {{1, 4, -2.5f, -.5f}, {1, 5, -3, -1}, {0, 6, -4, -3}, {0, 3, -5, -4}}),
            (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(search.running()[0].ids, (std::vector<int64_t>{8, 4}));
  EXPECT_EQ(search.running()[0].logprobs, (std::vector<float>{-2, -.5f}));
  EXPECT_EQ(search.running()[1].ids, (std::vector<int64_t>{8, 5}));
  EXPECT_FALSE(search.done());
}

TEST(BeamSearch, an_end_behind_the_counted_ranks_is_passed_over) {
  BeamSearch search(settings());
  feed(search, {{0, 7, -1, -1}, {0, 8, -2, -2}, {0, kEnd, -3, -3}, {0, 5, -4, -4}});
  EXPECT_FALSE(search.best().reason.has_value());
  feed(search, {{0, kEnd, -2, -1}, {0, 8, -3, -2}, {1, 9, -4, -3}, {1, 5, -5, -4}});
  ASSERT_TRUE(search.best().reason.has_value());
  EXPECT_EQ(search.best().ids, (std::vector<int64_t>{7, kEnd}));
  EXPECT_EQ(search.best().score, -1) << "-2 over two tokens";
  EXPECT_EQ(search.running()[0].ids, (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(search.running()[1].ids, (std::vector<int64_t>{8, 9}));
}

TEST(BeamSearch, early_stopping_ends_when_every_slot_is_full) {
  for (const EarlyStopping early : {EarlyStopping::kTrue, EarlyStopping::kFalse}) {
    BeamSearch search(settings(early, 0));
    feed(search, {{0, 7, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}});
    // Both counted candidates end, worse than what still runs.
    feed(search, {{0, kEnd, -8, -7}, {1, kEnd, -9, -7}, {0, 9, -7, -3}, {0, 5, -7.5f, -4}});
    EXPECT_EQ(search.done(), early == EarlyStopping::kTrue);
  }
}

TEST(BeamSearch, ends_when_no_running_text_can_become_better) {
  BeamSearch search(settings(EarlyStopping::kFalse, 0));
  feed(search, {{0, 7, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}});
  feed(search, {{0, kEnd, -2, -1}, {1, kEnd, -3, -1}, {0, 9, -7, -3}, {0, 5, -8, -4}});
  EXPECT_TRUE(search.done());
  EXPECT_EQ(search.best().score, -2);
}

TEST(BeamSearch, never_hopes_for_the_longest_text) {
  const std::vector<Candidate> first = {
      {0, 7, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}};
  // Running -7 over 2 tokens is worse than -3 over 2, over 10 tokens it would be better.
  const std::vector<Candidate> second = {
      {0, kEnd, -2, -1}, {1, kEnd, -3, -1}, {0, 9, -7, -3}, {0, 5, -8, -4}};
  for (const EarlyStopping early : {EarlyStopping::kNever, EarlyStopping::kFalse}) {
    BeamSearch search(settings(early, 1));
    feed(search, first);
    feed(search, second);
    EXPECT_EQ(search.done(), early == EarlyStopping::kFalse);
  }
}

TEST(BeamSearch, length_penalty_orders_finished_texts) {
  for (const double penalty : {0.0, 2.0}) {
    BeamSearch search(settings(EarlyStopping::kTrue, penalty));
    feed(search, {{0, kEnd, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}});
    feed(search, {{0, kEnd, -3, -1}, {1, 7, -5, -2}, {0, 9, -6, -3}, {1, 5, -7, -4}});
    EXPECT_TRUE(search.done());
    EXPECT_EQ(search.best().ids.size(), penalty > 0 ? 2u : 1u);
    EXPECT_FLOAT_EQ(search.best().score, penalty > 0 ? -0.75f : -1.0f);
  }
}

TEST(BeamSearch, the_length_ends_all) {
  BeamSearch search(settings());
  feed(search, {{0, 7, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}}, true);
  EXPECT_TRUE(search.done());
  EXPECT_EQ(search.best().reason, FinishReason::kLength);
  EXPECT_EQ(search.best().ids, (std::vector<int64_t>{7}));
}

TEST(BeamSearch, goes_on_with_fewer_rows_where_little_is_possible) {
  BeamSearch search(settings());
  EXPECT_EQ(feed(search, {{0, 7, -1, -1}}), (std::vector<int64_t>{0}));
  EXPECT_EQ(search.running().size(), 1u);
  EXPECT_TRUE(feed(search, {}).empty());
  EXPECT_TRUE(search.done());
  EXPECT_EQ(search.best().ids, (std::vector<int64_t>{7}));
}

TEST(BeamSearch, drawn_candidates_keep_their_order_for_finishing_only) {
  BeamSearch search(settings());
  // Draw order: the best score comes last and still leads the running texts.
  feed(search, {{0, kEnd, -5, -5}, {0, 8, -3, -3}, {0, kEnd + 7, -4, -4}, {0, 7, -1, -1}});
  EXPECT_EQ(search.running()[0].ids, (std::vector<int64_t>{7}));
  EXPECT_EQ(search.running()[1].ids, (std::vector<int64_t>{8}));
  EXPECT_EQ(search.best().ids, (std::vector<int64_t>{kEnd}));
}

TEST(Generation, bans_only_end_ids_that_the_model_knows) {
  const test::FakeTokenizer tokenizer;
  Settings settings;
  settings.min_new_tokens = 1;
  settings.eos_ids = {2, 50, 5};
  settings.vocab_size = 40;
  const std::vector<int64_t> prompt = {1, 7};
  Generation generation(settings, {settings.eos_ids, StopStrings(tokenizer, {}), 10}, prompt);
  EXPECT_EQ(generation.choice(3).banned, (std::vector<std::vector<int64_t>>{{2, 5}}));
  EXPECT_EQ(generation.choice(3).first_row, 3);
  generation.advance({{{0, 9, -1, -1}}, {}});
  EXPECT_TRUE(generation.choice(0).banned[0].empty());
  EXPECT_EQ(generation.choice(0).token, 1u);
}

TEST(Generation, counts_prompt_and_text_for_penalties) {
  const test::FakeTokenizer tokenizer;
  Settings settings;
  settings.repetition_penalty = 1.5;
  settings.no_repeat_ngram_size = 2;
  const std::vector<int64_t> prompt = {1, 3, 3, 3, 7};
  Generation generation(settings, {{2}, StopStrings(tokenizer, {}), 10}, prompt);
  EXPECT_EQ(generation.choice(0).seen[0], (std::vector<int64_t>{1, 3, 7}));
  generation.advance({{{0, 3, -1, -1}}, {}});
  EXPECT_EQ(generation.choice(0).seen[0], (std::vector<int64_t>{1, 3, 7}));
  EXPECT_EQ(generation.choice(0).banned[0], (std::vector<int64_t>{3, 7}));
}

TEST(Generation, counts_the_text_alone_where_the_reference_sees_no_prompt) {
  const test::FakeTokenizer tokenizer;
  Settings settings;
  settings.repetition_penalty = 1.5;
  settings.no_repeat_ngram_size = 2;
  settings.count_prompt = false;
  const std::vector<int64_t> prompt = {1, 3, 3, 3, 7};
  Generation generation(settings, {{2}, StopStrings(tokenizer, {}), 10}, prompt);
  EXPECT_TRUE(generation.choice(0).seen[0].empty());
  EXPECT_TRUE(generation.choice(0).banned[0].empty());
  for (const int64_t id : {3, 4, 3}) {
    generation.advance({{{0, id, -1, -1}}, {}});
  }
  EXPECT_EQ(generation.choice(0).seen[0], (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(generation.choice(0).banned[0], (std::vector<int64_t>{4}));
}

// How many of a text's choices foretell the next one; each of those is compared with it.
int foretold(const Settings& settings) {
  const test::FakeTokenizer tokenizer;
  const std::vector<int64_t> prompt = {1, 3, 3, 3, 7};
  Generation generation(settings, {{2}, StopStrings(tokenizer, {}), 10}, prompt);
  int count = 0;
  for (const int64_t id : {9, 3, 9, 4, 9, 3, 11, 12, 13}) {
    Choice now = generation.choice(0);
    generation.advance({{{0, id, -1, -1}}, {}});
    const Choice next = generation.choice(0);
    EXPECT_EQ(next.token, now.token + 1);
    if (!now.next_alike) continue;
    ++count;
    if (settings.repetition_penalty != 1)
      now.seen[0] = distinct_with(now.seen[0], std::vector<int64_t>{id});
    EXPECT_EQ(next.seen, now.seen);
    EXPECT_EQ(next.banned, now.banned);
    EXPECT_EQ(next.sample, now.sample);
    EXPECT_EQ(next.repetition_penalty, now.repetition_penalty);
    EXPECT_EQ(next.temperature, now.temperature);
    EXPECT_EQ(next.seed, now.seed);
    EXPECT_EQ(next.sequence, now.sequence);
  }
  return count;
}

TEST(Generation, foretells_its_next_choice_where_that_does_not_hang_on_this_one) {
  Settings settings;
  settings.eos_ids = {2};
  EXPECT_EQ(foretold(settings), 9);
  settings.sample = true;
  settings.temperature = 0.5;
  settings.repetition_penalty = 1.5;
  EXPECT_EQ(foretold(settings), 9);
  settings.min_new_tokens = 3;
  EXPECT_EQ(foretold(settings), 8);
  settings.no_repeat_ngram_size = 2;
  EXPECT_EQ(foretold(settings), 0);
}

TEST(Generation, tells_what_else_there_was_of_the_row_that_went_on) {
  const test::FakeTokenizer tokenizer;
  Settings settings;
  settings.top_logprobs = 2;
  settings.num_beams = 2;
  settings.max_new_tokens = 2;
  const std::vector<int64_t> prompt = {1};
  Generation generation(settings, {{2}, StopStrings(tokenizer, {}), 2}, prompt);
  EXPECT_EQ(generation.choice(0).alternatives, 2);
  const auto list = [](int64_t id) {
    return std::make_shared<const Alternatives>(Alternatives{{id, -1}, {id + 1, -2}});
  };
  generation.advance({{{0, 7, -1, -1}, {0, 8, -2, -2}, {0, 9, -3, -3}, {0, 5, -4, -4}}, {list(7)}});
  // The second beam overtakes the first one.
  generation.advance(
      {{{1, 4, -2.5f, -.5f}, {0, 5, -3, -2}, {0, 6, -4, -3}, {1, 3, -5, -3}}, {list(5), list(3)}});
  ASSERT_TRUE(generation.finished());
  EXPECT_EQ(generation.ids(), (std::vector<int64_t>{8, 4}));
  ASSERT_EQ(generation.alternatives().size(), 2u);
  EXPECT_EQ(generation.alternatives()[0]->front().token, 7);
  EXPECT_EQ(generation.alternatives()[1]->front().token, 3);
}

}  // namespace
}  // namespace vlm
