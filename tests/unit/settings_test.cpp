// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/settings.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace vlm {
namespace {

std::string refusal(const Options& options) {
  const Status status = check_options(options);
  return status ? "" : status.error().message;
}

Settings resolved(const Options& options, const GenerationDefaults& defaults = {}) {
  const Result<Settings> settings = resolve_options(options, defaults);
  EXPECT_TRUE(settings) << settings.error().message;
  return *settings;
}

TEST(Settings, nothing_set_is_greedy_with_128_tokens) {
  const Settings settings = resolved({});
  EXPECT_FALSE(settings.sample);
  EXPECT_EQ(settings.max_new_tokens, 128);
  EXPECT_EQ(settings.min_new_tokens, 0);
  EXPECT_EQ(settings.num_beams, 1);
  EXPECT_EQ(settings.top_k, 0);
  EXPECT_EQ(settings.top_p, 1);
  EXPECT_EQ(settings.repetition_penalty, 1);
  EXPECT_EQ(settings.length_penalty, 1);
  EXPECT_EQ(settings.early_stopping, EarlyStopping::kFalse);
  EXPECT_EQ(settings.repetition_guard, 0);
  EXPECT_EQ(settings.top_logprobs, 0);
}

TEST(Settings, guard_and_alternatives_are_taken_over) {
  const Settings settings = resolved({.repetition_guard = 3, .top_logprobs = 5});
  EXPECT_EQ(settings.repetition_guard, 3);
  EXPECT_EQ(settings.top_logprobs, 5);
}

TEST(Settings, temperature_alone_decides_on_sampling) {
  EXPECT_TRUE(resolved({.temperature = 0.2}).sample);
  EXPECT_EQ(resolved({.temperature = 0.2}).temperature, 0.2);
  EXPECT_FALSE(resolved({.temperature = 0}).sample);
  EXPECT_FALSE(resolved({.top_k = 5, .top_p = 0.5}).sample);
}

TEST(Settings, the_checkpoint_samples_only_with_do_sample) {
  GenerationDefaults defaults;
  defaults.options.temperature = 0.9;
  defaults.options.top_p = 0.6;
  EXPECT_FALSE(resolved({}, defaults).sample);

  defaults.do_sample = true;
  EXPECT_TRUE(resolved({}, defaults).sample);
  EXPECT_EQ(resolved({}, defaults).temperature, 0.9);
  EXPECT_EQ(resolved({}, defaults).top_p, 0.6);
  EXPECT_FALSE(resolved({.temperature = 0}, defaults).sample);

  defaults.options.temperature.reset();
  EXPECT_TRUE(resolved({}, defaults).sample);
  EXPECT_EQ(resolved({}, defaults).temperature, 1);
}

TEST(Settings, what_is_set_wins_over_the_checkpoint) {
  GenerationDefaults defaults;
  defaults.options.max_new_tokens = 20;
  defaults.options.num_beams = 4;
  defaults.options.length_penalty = 2;
  defaults.options.early_stopping = EarlyStopping::kTrue;
  defaults.options.repetition_penalty = 1.3;
  defaults.options.no_repeat_ngram_size = 3;
  defaults.options.min_new_tokens = 2;
  defaults.options.top_p = 0.6;
  defaults.options.stop = {"."};
  Options options;
  options.max_new_tokens = 7;
  options.num_beams = 1;
  options.temperature = 0.5;
  const Settings settings = resolved(options, defaults);
  EXPECT_EQ(settings.max_new_tokens, 7);
  EXPECT_EQ(settings.num_beams, 1);
  EXPECT_EQ(settings.length_penalty, 2);
  EXPECT_EQ(settings.early_stopping, EarlyStopping::kTrue);
  EXPECT_EQ(settings.repetition_penalty, 1.3);
  EXPECT_EQ(settings.no_repeat_ngram_size, 3);
  EXPECT_EQ(settings.min_new_tokens, 2);
  EXPECT_EQ(settings.top_p, 0.6);
  EXPECT_EQ(settings.stop, (std::vector<std::string>{"."}));
  options.stop = {"x"};
  EXPECT_EQ(resolved(options, defaults).stop, (std::vector<std::string>{"x"}));
}

TEST(Settings, a_seed_nobody_sets_is_drawn) {
  EXPECT_EQ(resolved({.seed = 5}).seed, 5u);
  EXPECT_NE(resolved({}).seed, resolved({}).seed);
}

TEST(Settings, refusals_name_option_value_and_range) {
  EXPECT_EQ(refusal({.max_new_tokens = 0}), "max-new-tokens is 0, but it must be at least 1");
  EXPECT_EQ(refusal({.top_p = 1.5}),
            "top-p is 1.5, but it must be above 0 and at most 1 (1 is off)");
  EXPECT_EQ(refusal({.temperature = -1}),
            "temperature is -1, but it must be at least 0 (0 is greedy)");
}

TEST(Settings, every_range_has_both_ends) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Options& good :
       {Options{.max_new_tokens = 1}, Options{.min_new_tokens = 0}, Options{.temperature = 0},
        Options{.top_k = 0}, Options{.top_p = 1}, Options{.top_p = 1e-9}, Options{.min_p = 0},
        Options{.min_p = 1}, Options{.repetition_penalty = 0.1}, Options{.no_repeat_ngram_size = 0},
        Options{.num_beams = 1}, Options{.length_penalty = -2}, Options{.stop = {"a"}},
        Options{.repetition_guard = 0}, Options{.repetition_guard = 2},
        Options{.top_logprobs = 0}}) {
    EXPECT_EQ(refusal(good), "");
  }
  for (const Options& bad :
       {Options{.min_new_tokens = -1}, Options{.temperature = infinity},
        Options{.temperature = std::nan("")}, Options{.top_k = -1}, Options{.top_p = 0},
        Options{.top_p = 1.01}, Options{.min_p = -0.1}, Options{.min_p = 1.1},
        Options{.repetition_penalty = 0}, Options{.repetition_penalty = infinity},
        Options{.no_repeat_ngram_size = -1}, Options{.num_beams = 0},
        Options{.length_penalty = -infinity}, Options{.length_penalty = std::nan("")},
        Options{.max_new_tokens = 3, .min_new_tokens = 4}, Options{.stop = {"a", ""}},
        Options{.repetition_guard = 1}, Options{.repetition_guard = -3},
        Options{.top_logprobs = -1}}) {
    const Status status = check_options(bad);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().kind, ErrorKind::kInvalidArgument);
  }
}

TEST(Settings, a_bad_value_of_the_checkpoint_is_its_own) {
  GenerationDefaults defaults;
  defaults.options.top_p = 0;
  EXPECT_TRUE(resolve_options({}, defaults)) << "greedy does not use it";
  const Result<Settings> settings = resolve_options({.temperature = 1}, defaults);
  ASSERT_FALSE(settings);
  EXPECT_EQ(settings.error().kind, ErrorKind::kInvalidModel);
  EXPECT_NE(settings.error().message.find("generation_config.json"), std::string::npos);
  EXPECT_TRUE(resolve_options({.temperature = 1, .top_p = 0.9}, defaults));
}

TEST(Settings, the_context_clips_the_answer) {
  Settings settings;
  settings.max_new_tokens = 50;
  settings.min_new_tokens = 40;
  ASSERT_TRUE(fit_context(settings, 70, 64, 100));
  EXPECT_EQ(settings.max_new_tokens, 30);
  EXPECT_EQ(settings.min_new_tokens, 30);
  ASSERT_TRUE(fit_context(settings, 99, 64, 100));
  EXPECT_EQ(settings.max_new_tokens, 1);
}

TEST(Settings, a_prompt_that_fills_the_context_is_refused_with_both_numbers) {
  Settings settings;
  const Status status = fit_context(settings, 120, 64, 100);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::kPromptTooLong);
  EXPECT_EQ(status.error().message,
            "the prompt takes 120 tokens (64 of them for pictures), and the model's context of 100 "
            "leaves no room for an answer; shorten the prompt or give fewer pictures");
  EXPECT_FALSE(fit_context(settings, 100, 0, 100));
}

TEST(Settings, content_needs_a_user_turn_and_whole_frames) {
  const Prompt good = {"raw", {}, {{Turn::Role::kUser, "What is this?"}}};
  const Frame frame = {2, 1, std::vector<uint8_t>(6)};
  EXPECT_TRUE(check_content(good, {frame}));
  EXPECT_TRUE(check_content(good, {}));
  EXPECT_FALSE(check_content({"raw", {}, {}}, {}));
  EXPECT_FALSE(check_content({"raw", {}, {{Turn::Role::kUser, " \n"}}}, {}));
  EXPECT_FALSE(check_content({"raw", {}, {{Turn::Role::kAssistant, "x"}}}, {}));
  EXPECT_FALSE(check_content(good, {{0, 1, {}}}));
  EXPECT_FALSE(check_content(good, {frame, {2, -1, {}}}));
  const Status torn = check_content(good, {{2, 2, std::vector<uint8_t>(11)}});
  ASSERT_FALSE(torn);
  EXPECT_EQ(torn.error().message,
            "frame 0 is 2×2 pixels but holds 11 bytes; RGB rows without padding take 12");
}

TEST(Settings, formats_are_known_by_name) {
  EXPECT_TRUE(check_format("auto"));
  EXPECT_TRUE(check_format("raw"));
  const Status status = check_format("klingon");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("klingon"), std::string::npos);
  EXPECT_NE(status.error().message.find("vicuna_v1"), std::string::npos);
}

}  // namespace
}  // namespace vlm
