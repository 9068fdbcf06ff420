// SPDX-License-Identifier: LGPL-2.1-or-later
// Prompts that are processed in parts: others have their text under way, or they are long.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "batch_case.h"

namespace vlm {
namespace {

using test::BatchTest;
using test::request_for;

class PromptChunks : public BatchTest {
 protected:
  /// A text of many tokens is under way.
  size_t begin_with_a_text(int64_t chunk) {
    open();
    executor_->eos_bias = -100;
    executor_->take_prompts_in_chunks(chunk);
    const size_t place = add(long_text("first"));
    batch_->step();
    executor_->prompt_parts.clear();
    executor_->encode_batches.clear();
    return place;
  }
  static Request long_text(const std::string& prompt) {
    Request request = request_for(prompt, 0);
    request.options.max_new_tokens = 60;
    return request;
  }
  static Request few_tokens(const std::string& prompt, size_t pictures, uint8_t colour = 9) {
    Request request = request_for(prompt, pictures, colour);
    request.options.max_new_tokens = 3;
    return request;
  }
  std::vector<int64_t> alone(Request request) {
    open();
    executor_->eos_bias = -100;
    const size_t place = add(std::move(request));
    run_all();
    return description_of(place).token_ids;
  }
};

TEST_F(PromptChunks, change_no_text_wherever_they_cut_it) {
  const Request request = few_tokens("what do you see", 2);
  const std::vector<int64_t> expected = alone(request);
  const std::vector<int64_t> expected_beside = alone(long_text("first"));
  for (int64_t chunk = 1; chunk < 30; ++chunk) {
    const size_t beside = begin_with_a_text(chunk);
    const size_t place = add(request);
    run_all();
    EXPECT_EQ(description_of(place).token_ids, expected) << "chunks of " << chunk;
    EXPECT_EQ(description_of(beside).token_ids, expected_beside) << "chunks of " << chunk;
  }
}

TEST_F(PromptChunks, let_the_others_texts_go_on_in_each_step) {
  begin_with_a_text(4);
  executor_->before_run = [&](const StepPlan& plan) {
    EXPECT_EQ(plan.decodes.size(), 1u);
    EXPECT_EQ(plan.choices.size(), plan.prompts.at(0).last() ? 2u : 1u);
  };
  add(few_tokens(std::string(12, 'a'), 0));
  for (int i = 0; i < 4; ++i) batch_->step();
  EXPECT_EQ(executor_->prompt_parts, (std::vector<size_t>{4, 4, 4, 1}));
  executor_->before_run = nullptr;
  run_all();
}

TEST_F(PromptChunks, let_them_go_on_between_pieces_of_a_picture_too) {
  const std::vector<int64_t> expected = alone(long_text("first"));
  const std::vector<int64_t> expected_seen = alone(few_tokens("seen", 1));
  const size_t beside = begin_with_a_text(4);
  executor_->encode_pieces = 4;
  const size_t place = add(few_tokens("seen", 1));
  const int64_t before = executor_->steps;
  batch_->step();
  EXPECT_EQ(executor_->steps - before, 4);
  run_all();
  EXPECT_EQ(description_of(beside).token_ids, expected);
  EXPECT_EQ(description_of(place).token_ids, expected_seen);
}

TEST_F(PromptChunks, of_a_picture_are_no_trouble_for_a_text_that_ends_among_them) {
  open();
  executor_->eos_bias = -100;
  const size_t first = add(few_tokens("first", 0));
  batch_->step();
  executor_->encode_pieces = 5;
  const size_t place = add(few_tokens("seen", 1));
  batch_->step();
  EXPECT_EQ(description_of(first).token_ids.size(), 3u);
  run_all();
  EXPECT_EQ(description_of(place).token_ids.size(), 3u);
}

TEST_F(PromptChunks, of_a_picture_that_leave_no_memory_for_a_step_only_delay_it) {
  const std::vector<int64_t> expected = alone(long_text("first"));
  const size_t beside = begin_with_a_text(4);
  executor_->encode_pieces = 5;
  executor_->before_run = [](const StepPlan& plan) {
    if (plan.prompts.empty()) throw Failure(ErrorKind::kOutOfMemory, "no memory");
  };
  const size_t place = add(few_tokens("seen", 1));
  batch_->step();
  executor_->before_run = nullptr;
  run_all();
  EXPECT_EQ(description_of(beside).token_ids, expected);
  EXPECT_EQ(description_of(place).token_ids.size(), 3u);
}

TEST_F(PromptChunks, of_a_picture_end_where_the_device_is_lost) {
  const size_t beside = begin_with_a_text(4);
  executor_->encode_pieces = 5;
  executor_->before_run = [](const StepPlan&) { throw Failure(ErrorKind::kDevice, "lost"); };
  const size_t place = add(few_tokens("seen", 1));
  const size_t waiting = add(few_tokens("not seen", 1));
  batch_->step();
  for (const size_t one : {beside, place, waiting}) {
    EXPECT_EQ(error_of(one).kind, ErrorKind::kDevice);
  }
  EXPECT_TRUE(batch_->fatal());
  run_all();
}

TEST_F(PromptChunks, are_shared_by_those_who_come_first) {
  begin_with_a_text(10);
  std::vector<size_t> starts;
  executor_->before_run = [&](const StepPlan& plan) { starts.push_back(plan.prompts.size()); };
  for (int i = 0; i < 2; ++i) {
    add(few_tokens(std::string(6, 'a'), 1, static_cast<uint8_t>(9 * i)));
    for (int k = 0; k < 2; ++k) add(few_tokens(std::string(5, 'b'), 0));
  }
  for (int i = 0; i < 4; ++i) batch_->step();
  // Twelve tokens, six, six, and twelve again, of which none is cut that need not be.
  EXPECT_EQ(executor_->prompt_parts, (std::vector<size_t>{10, 8, 6, 10}));
  EXPECT_EQ(starts, (std::vector<size_t>{1, 2, 1, 1}));
  // Nobody's pictures are seen to before their turn.
  EXPECT_EQ(executor_->encode_batches, (std::vector<size_t>{1, 1}));
  run_all();
}

TEST_F(PromptChunks, end_where_no_text_is_left_to_wait) {
  open();
  executor_->eos_bias = -100;
  executor_->take_prompts_in_chunks(2);
  add(few_tokens("first", 0));
  batch_->step();
  add(few_tokens(std::string(30, 'a'), 0));
  run_all();
  EXPECT_EQ(executor_->prompt_parts, (std::vector<size_t>{6, 2, 2, 27, 0, 0}));
}

TEST_F(PromptChunks, change_no_text_where_a_prompt_alone_is_cut) {
  const Request request = few_tokens("what do you see", 2);
  const std::vector<int64_t> expected = alone(request);
  for (int64_t part = 1; part < 27; ++part) {
    open();
    executor_->eos_bias = -100;
    executor_->take_prompts_in_chunks(1);
    executor_->cut_prompts_at(part);
    const size_t place = add(request);
    run_all();
    EXPECT_EQ(description_of(place).token_ids, expected) << "parts of " << part;
    EXPECT_EQ(executor_->prompt_parts.front(), static_cast<size_t>(part));
    EXPECT_EQ(executor_->encode_batches, (std::vector<size_t>{1})) << "parts of " << part;
  }
}

TEST_F(PromptChunks, are_not_made_of_what_is_traced) {
  begin_with_a_text(4);
  Request traced = few_tokens(std::string(12, 'a'), 1);
  traced.trace_path = "trace";
  add(std::move(traced));
  add(few_tokens("b", 0));
  batch_->step();
  EXPECT_EQ(executor_->prompt_parts, (std::vector<size_t>{18}));
  run_all();
  EXPECT_EQ(executor_->written.at("trace"), "pictures prompt 3");
}

TEST_F(PromptChunks, of_beams_come_to_one_choice) {
  Request request = few_tokens("what do you see", 1);
  request.options.num_beams = 3;
  const std::vector<int64_t> expected = alone(request);
  begin_with_a_text(4);
  const size_t place = add(request);
  run_all();
  EXPECT_EQ(description_of(place).token_ids, expected);
}

TEST_F(PromptChunks, end_with_what_is_cancelled_or_fails) {
  const size_t beside = begin_with_a_text(4);
  const size_t cancelled = add(few_tokens(std::string(12, 'a'), 1));
  batch_->step();
  batch_->cancel(cancelled + 1);
  EXPECT_EQ(error_of(cancelled).kind, ErrorKind::kCancelled);
  const size_t failed = add(few_tokens(std::string(12, 'b'), 1));
  batch_->step();
  executor_->before_run = [](const StepPlan& plan) {
    if (!plan.prompts.empty()) throw Failure(ErrorKind::kOutOfMemory, "no memory");
  };
  batch_->step();
  EXPECT_EQ(error_of(failed).kind, ErrorKind::kOutOfMemory);
  run_all();
  EXPECT_EQ(description_of(beside).token_ids.size(), 60u);
}

}  // namespace
}  // namespace vlm
