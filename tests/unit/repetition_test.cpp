// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/repetition.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "fake_model.h"
#include "sampler/generation.h"

namespace vlm {
namespace {

using Ids = std::vector<int64_t>;

Ids operator+(Ids left, const Ids& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Ids times(const Ids& cycle, int count) {
  Ids ids;
  for (int i = 0; i < count; ++i) {
    ids = std::move(ids) + cycle;
  }
  return ids;
}

/// `count` ids, all different.
Ids counting(int64_t first, int64_t count) {
  Ids ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(first + i);
  }
  return ids;
}

int64_t period(const Ids& ids, int64_t repeats) {
  return find_loop(ids, repeats).period;
}

TEST(Repetition, a_sentence_said_often_enough_is_a_loop) {
  const Ids sentence = counting(10, 9);
  EXPECT_EQ(period(Ids{1, 2} + times(sentence, 3), 3), 9);
  EXPECT_EQ(period(Ids{1, 2} + times(sentence, 2), 3), 0);
  EXPECT_EQ(period(times(sentence, 3), 3), 9) << "nothing stands before it";
  EXPECT_EQ(find_loop(Ids{1} + times(sentence, 5), 3).repeats, 5);
  EXPECT_EQ(find_loop(Ids{1} + times(sentence, 5), 3).surplus(), 36);
}

TEST(Repetition, it_must_stand_at_the_end_without_a_gap) {
  const Ids sentence = counting(10, 9);
  EXPECT_EQ(period(times(sentence, 3) + Ids{1}, 3), 0);
  EXPECT_EQ(period(times(sentence, 2) + Ids{1} + sentence, 3), 0);
  Ids changed = times(sentence, 3);
  changed[4] = 99;
  EXPECT_EQ(period(changed, 3), 0);
}

TEST(Repetition, wherever_the_cycle_is_cut_it_is_one) {
  const Ids sentence = counting(10, 7);
  for (int64_t offset = 0; offset < 7; ++offset) {
    const Ids ids = Ids(sentence.end() - offset, sentence.end()) + times(sentence, 3);
    EXPECT_EQ(period(ids, 3), 7) << offset;
  }
}

TEST(Repetition, the_shortest_cycle_counts) {
  EXPECT_EQ(period(times({5, 6}, 40), 2), 2);
  EXPECT_EQ(find_loop(times({5}, 40), 2).repeats, 40);
  EXPECT_EQ(period(times({5, 5, 5, 5, 5, 5, 5, 8}, 3), 3), 8) << "not the run inside";
}

TEST(Repetition, short_cycles_need_sixteen_tokens) {
  EXPECT_EQ(period(times({7}, 15), 3), 0) << "a row of dots";
  EXPECT_EQ(period(times({7}, 16), 3), 1);
  EXPECT_EQ(period(times({7, 8}, 7), 3), 0) << "very, very, very";
  EXPECT_EQ(period(times({7, 8}, 8), 3), 2);
  EXPECT_EQ(period(times({7, 8, 9, 4, 5}, 3), 3), 0);
  EXPECT_EQ(period(times({7, 8, 9, 4, 5}, 4), 3), 5);
  EXPECT_EQ(period(times({7, 8, 9, 4, 5, 6}, 3), 3), 6);
}

TEST(Repetition, lists_whose_words_change_are_none) {
  Ids list;
  for (int64_t number = 0; number < 40; ++number) {
    list = std::move(list) + Ids{1000 + number, 5, 6, 7, 8, 9, 10, 11};
  }
  for (size_t length = 0; length <= list.size(); ++length) {
    ASSERT_EQ(period(Ids(list.begin(), list.begin() + static_cast<int64_t>(length)), 2), 0);
  }
  // "a red circle and a blue circle and a red square and …"
  const Ids scene = {1, 2, 3, 4, 1, 5, 3, 4, 1, 2, 6, 4, 1, 5, 6, 4, 1, 2, 3, 9};
  EXPECT_EQ(period(scene, 2), 0);
}

TEST(Repetition, cycles_longer_than_the_longest_are_none) {
  EXPECT_EQ(period(times(counting(0, kLongestLoop), 2), 2), kLongestLoop);
  EXPECT_EQ(period(times(counting(0, kLongestLoop + 1), 2), 2), 0);
}

TEST(Repetition, off_and_too_little_are_no_loop) {
  EXPECT_EQ(period({}, 3), 0);
  EXPECT_EQ(period({1}, 2), 0);
  for (const int64_t repeats : {-1, 0, 1}) {
    EXPECT_EQ(period(times({1}, 100), repeats), 0);
  }
  EXPECT_EQ(period(times({1}, 100), 101), 0);
  EXPECT_EQ(period(times({1}, 100), INT64_MAX), 0);
}

/// The definition, word for word.
bool loops(const Ids& ids, int64_t period, int64_t repeats) {
  const auto size = static_cast<int64_t>(ids.size());
  if (period > kLongestLoop || period * repeats > size) {
    return false;
  }
  for (int64_t i = size - period * repeats; i + period < size; ++i) {
    if (ids[static_cast<size_t>(i)] != ids[static_cast<size_t>(i + period)]) {
      return false;
    }
  }
  return true;
}

TEST(Repetition, equals_its_definition_on_random_texts) {
  std::mt19937 random(5);
  int found = 0;
  for (int round = 0; round < 3000; ++round) {
    Ids ids;
    for (unsigned i = random() % 20; i > 0; --i) {
      ids.push_back(random() % 3);
    }
    Ids cycle;
    for (unsigned i = 1 + random() % 8; i > 0; --i) {
      cycle.push_back(random() % 2);
    }
    ids = std::move(ids) + times(cycle, static_cast<int>(random() % 9));
    const int64_t repeats = 2 + static_cast<int64_t>(random() % 5);
    int64_t expected = 0;
    for (int64_t p = 1; expected == 0 && p <= static_cast<int64_t>(ids.size()); ++p) {
      const int64_t needed = std::max(repeats, (kShortestLoopSpan + p - 1) / p);
      expected = loops(ids, p, needed) ? p : 0;
    }
    ASSERT_EQ(period(ids, repeats), expected) << round;
    found += expected > 0;
  }
  EXPECT_GT(found, 300);
}

/// A greedy text that is given `ids` one by one.
Generation generated(const Settings& settings, const Ids& ids, const Ids& prompt) {
  static const test::FakeTokenizer tokenizer;
  Generation generation(
      settings,
      {{2}, StopStrings(tokenizer, {}), settings.max_new_tokens, settings.repetition_guard},
      prompt);
  for (const int64_t id : ids) {
    if (!generation.finished()) {
      generation.advance({{{0, id, -1, -1}}, {}});
    }
  }
  return generation;
}

TEST(Repetition, a_looping_text_ends_and_keeps_the_cycle_once) {
  Settings settings;
  settings.repetition_guard = 3;
  const Ids prompt = {1};
  const Ids sentence = counting(10, 8);
  const Generation looping = generated(settings, Ids{5, 6} + times(sentence, 9), prompt);
  ASSERT_TRUE(looping.finished());
  EXPECT_EQ(looping.finish_reason(), FinishReason::kRepetition);
  EXPECT_EQ(looping.ids(), (Ids{5, 6} + sentence));
  EXPECT_EQ(looping.logprobs().size(), 10u);
}

TEST(Repetition, without_the_guard_and_in_the_prompt_loops_go_on) {
  Settings settings;
  const Ids sentence = counting(10, 8);
  const Ids prompt = times(sentence, 5);
  EXPECT_FALSE(generated(settings, times(sentence, 6), prompt).finished());
  settings.repetition_guard = 3;
  EXPECT_FALSE(generated(settings, times(sentence, 2), prompt).finished())
      << "what the prompt repeats is no loop of the text";
}

TEST(Repetition, an_end_wins_over_a_loop_and_a_loop_over_the_length) {
  Settings settings;
  settings.repetition_guard = 2;
  settings.max_new_tokens = 16;
  const Ids prompt = {1};
  EXPECT_EQ(generated(settings, times(counting(10, 8), 2), prompt).finish_reason(),
            FinishReason::kRepetition);
  const Ids with_end = counting(3, 7) + Ids{2};
  EXPECT_EQ(generated(settings, with_end + with_end, prompt).finish_reason(), FinishReason::kStop);
}

TEST(Repetition, a_beam_that_loops_is_finished_and_cut) {
  static const test::FakeTokenizer tokenizer;
  Settings settings;
  settings.num_beams = 2;
  settings.repetition_guard = 2;
  settings.max_new_tokens = 30;
  settings.early_stopping = EarlyStopping::kTrue;
  const Ids prompt = {1};
  Generation generation(settings, {{2}, StopStrings(tokenizer, {}), 30, 2}, prompt);
  // The best beam says 10 … 17 twice, the other one counts on.
  for (int step = 0; step < 16; ++step) {
    const float score = -0.1f * static_cast<float>(step + 1);
    const int64_t other = step == 0 ? 0 : 1;
    ASSERT_FALSE(generation.finished());
    generation.advance({{{0, 10 + step % 8, score, -0.1f},
                         {other, 100 + step, 2 * score, -0.2f},
                         {0, 300 + step, 100 * score, -9},
                         {other, 400 + step, 100 * score, -9}},
                        {}});
  }
  EXPECT_FALSE(generation.finished()) << "one slot is still open";
  EXPECT_EQ(generation.ids().size(), 16u);
  EXPECT_EQ(generation.last_id(0), 115) << "what loops does not go on";
  generation.advance({{{0, 2, -9, -1}, {0, 7, -10, -2}, {1, 8, -300, -1}, {1, 9, -300, -1}}, {}});
  ASSERT_TRUE(generation.finished());
  EXPECT_EQ(generation.finish_reason(), FinishReason::kRepetition);
  EXPECT_EQ(generation.ids(), counting(10, 8));
  EXPECT_FLOAT_EQ(static_cast<float>(*generation.sequence_score()), -0.1f)
      << "the score is that of all sixteen tokens";
}

}  // namespace
}  // namespace vlm
