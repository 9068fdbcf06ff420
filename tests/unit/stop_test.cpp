// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/stop.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fake_model.h"
#include "sampler/history.h"
#include "text/description.h"

namespace vlm {
namespace {

using test::FakeTokenizer;

std::vector<int64_t> ids_of(const std::vector<std::string>& pieces) {
  std::vector<int64_t> ids;
  for (const std::string& piece : pieces) {
    ids.push_back(FakeTokenizer().id_of(piece).value());
  }
  return ids;
}

/// Whether the last of `pieces` completes one of `stops`.
bool completes(const std::vector<std::string>& stops, const std::vector<std::string>& pieces,
               const std::vector<std::string>& prompt = {}) {
  const FakeTokenizer tokenizer;
  const StopStrings strings(tokenizer, stops);
  std::vector<int64_t> ids = ids_of(pieces);
  const int64_t last = ids.back();
  ids.pop_back();
  return strings.completed_by(ids_of(prompt), ids, last);
}

TEST(Stop, a_string_is_found_across_token_borders) {
  EXPECT_TRUE(completes({"stop"}, {"st", "op"}));
  EXPECT_TRUE(completes({"stop"}, {"st", "opera"}));
  EXPECT_TRUE(completes({"stop"}, {"s", "topper"}));
  EXPECT_TRUE(completes({"stop"}, {"las", "topper"}));
  EXPECT_TRUE(completes({"stop"}, {"a", "s", "t", "o", "p"}));
  EXPECT_TRUE(completes({"é"}, {"\xC3", "\xA9"}));
}

TEST(Stop, it_must_touch_the_last_token) {
  EXPECT_FALSE(completes({"stop"}, {"st", "op", "a"}));
  EXPECT_FALSE(completes({"stop"}, {"st", "opera", "t"}));
  EXPECT_FALSE(completes({"stop"}, {"st", "o"}));
  EXPECT_FALSE(completes({"op"}, {"opera", "a"}));
}

TEST(Stop, it_may_begin_in_the_prompt) {
  EXPECT_TRUE(completes({"a stop"}, {"op"}, {"a", " ", "st"}));
  EXPECT_FALSE(completes({"b stop"}, {"op"}, {"a", " ", "st"}));
}

TEST(Stop, special_tokens_count_as_written) {
  EXPECT_TRUE(completes({"a</s>"}, {"a", "</s>"}));
}

TEST(Stop, any_of_several_is_enough) {
  EXPECT_TRUE(completes({"zzz", "b"}, {"a", "b"}));
  EXPECT_FALSE(completes({}, {"a", "b"}));
}

TEST(Stop, end_ids_win_over_strings_and_strings_over_length) {
  const FakeTokenizer tokenizer;
  const StopRules rules{{2, 5}, StopStrings(tokenizer, {"b", "</s>"}), 2};
  const std::vector<int64_t> before = ids_of({"c"});
  EXPECT_EQ(rules.after({}, before, 2), FinishReason::kStop);
  EXPECT_EQ(rules.after({}, before, 5), FinishReason::kStop);
  EXPECT_EQ(rules.after({}, {}, ids_of({"c"})[0]), std::nullopt);
  EXPECT_EQ(rules.after({}, before, ids_of({"c"})[0]), FinishReason::kLength);
  const StopRules other{{}, StopStrings(tokenizer, {"b"}), 1};
  EXPECT_EQ(other.after({}, {}, ids_of({"b"})[0]), FinishReason::kStopString);
}

TEST(History, distinct_ids_are_sorted_and_single) {
  EXPECT_EQ(distinct(std::vector<int64_t>{5, 3, 5, 1}), (std::vector<int64_t>{1, 3, 5}));
  EXPECT_EQ(distinct_with({1, 9}, std::vector<int64_t>{4, 9}), (std::vector<int64_t>{1, 4, 9}));
}

TEST(History, ngrams_reach_over_the_prompt) {
  const std::vector<int64_t> prompt = {7, 8, 9, 7};
  EXPECT_EQ(repeated_ngram_ids(prompt, {}, 2), (std::vector<int64_t>{8}));
  EXPECT_EQ(repeated_ngram_ids(prompt, std::vector<int64_t>{8}, 3), (std::vector<int64_t>{9}));
  EXPECT_EQ(repeated_ngram_ids(prompt, std::vector<int64_t>{8}, 2), (std::vector<int64_t>{9}));
  EXPECT_EQ(repeated_ngram_ids(prompt, {}, 1), (std::vector<int64_t>{7, 8, 9}));
  EXPECT_TRUE(repeated_ngram_ids(prompt, {}, 0).empty());
  EXPECT_TRUE(repeated_ngram_ids(prompt, {}, 5).empty());
}

TEST(Description, white_space_goes_at_both_ends_only) {
  EXPECT_EQ(trimmed(" \t\n a b \r\n"), "a b");
  EXPECT_EQ(trimmed("\u00A0\u3000é\u2003"), "é");
  EXPECT_EQ(trimmed(" \u2028 "), "");
  EXPECT_EQ(trimmed("\u0430"), "\u0430");
  EXPECT_EQ(trimmed("a\xA0"), "a\xA0") << "half a character is no white space";
}

TEST(Description, special_tokens_are_left_out) {
  EXPECT_EQ(description_text(FakeTokenizer(), ids_of({" ", "st", "op", " ", "</s>"})), "stop");
}

}  // namespace
}  // namespace vlm
