// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/batch.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "batch_case.h"
#include "fake_model.h"
#include "scheduler/look_ahead.h"

namespace vlm {
namespace {

using test::BatchTest;
using test::request_for;

TEST_F(BatchTest, one_request_gets_text_and_numbers) {
  open();
  Request request = request_for("what is this", 2);
  const size_t place = add(std::move(request));
  run_all();
  const Description description = description_of(place);
  EXPECT_FALSE(description.token_ids.empty());
  EXPECT_EQ(description.token_ids.size(), description.logprobs.size());
  EXPECT_EQ(description.prompt, "what is this");
  EXPECT_EQ(description.image_tokens, 2 * test::kImageTokens);
  EXPECT_EQ(description.prompt_tokens, 1 + 2 * test::kImageTokens + 12);
  EXPECT_FALSE(description.sequence_score.has_value());
  EXPECT_GE(description.timing.total_ms, description.timing.decode_ms);
  EXPECT_EQ(executor_->steps, static_cast<int64_t>(description.token_ids.size()));
}

TEST_F(BatchTest, prompts_join_while_others_go_on) {
  open();
  executor_->eos_bias = -100;
  Request first = request_for("first");
  first.options.max_new_tokens = 10;
  add(std::move(first));
  batch_->step();
  batch_->step();
  Request second = request_for("second", 1, 9);
  second.options.max_new_tokens = 3;
  add(std::move(second));
  size_t mixed_steps = 0;
  executor_->before_run = [&](const StepPlan& plan) {
    mixed_steps += plan.prompts.size() == 1 && plan.decodes.size() == 1;
  };
  run_all();
  EXPECT_EQ(mixed_steps, 1u);
  EXPECT_EQ(order_, (std::vector<size_t>{1, 0}));
  EXPECT_EQ(executor_->steps, 10);
}

TEST_F(BatchTest, pictures_of_all_who_start_are_encoded_together) {
  open();
  for (int i = 0; i < 3; ++i) {
    add(request_for("hello", 1, static_cast<uint8_t>(20 * i)));
  }
  add(request_for("no picture", 0));
  run_all();
  EXPECT_EQ(executor_->encode_batches, (std::vector<size_t>{3}));
  EXPECT_EQ(executor_->most_prompts, 4u);
}

TEST_F(BatchTest, prompts_share_a_step_as_far_as_a_chunk_goes_however_long_the_context) {
  for (const int64_t context : {60, 1000}) {
    open(8, 1000, context);
    executor_->take_prompts_in_chunks(60);
    for (int i = 0; i < 4; ++i) {
      add(request_for(std::string(20, 'a'), 0));
    }
    run_all();
    EXPECT_EQ(executor_->most_prompts, 2u) << context;
  }
}

TEST_F(BatchTest, of_long_prompts_the_first_does_not_wait_for_the_others) {
  open(8, 4000, 1000);
  executor_->eos_bias = -100;
  executor_->take_prompts_in_chunks(100);
  for (int i = 0; i < 3; ++i) {
    Request request = request_for(std::string(249, 'a'), 0);
    request.options.max_new_tokens = 2;
    add(std::move(request));
  }
  batch_->step();
  EXPECT_EQ(executor_->prompt_parts, (std::vector<size_t>{250}));
  batch_->step();
  EXPECT_EQ(order_, (std::vector<size_t>{0}));
  run_all();
  EXPECT_EQ(executor_->prompt_parts, (std::vector<size_t>{250, 100, 150, 100, 150, 0}));
}

TEST_F(BatchTest, what_lacks_memory_within_a_context_is_told_so) {
  open(4, 60, 100);
  const Error error = error_of(add(request_for(std::string(70, 'a'), 0)));
  EXPECT_EQ(error.kind, ErrorKind::kOutOfMemory);
  EXPECT_NE(error.message.find("room for 60 in the memory"), std::string::npos) << error.message;
  EXPECT_TRUE(batch_->idle());
}

TEST_F(BatchTest, who_does_not_fit_waits_for_room_and_is_not_passed) {
  open(4, 400, 200);
  executor_->eos_bias = -100;
  Request small = request_for("small", 0);
  small.options.max_new_tokens = 8;
  Request large = request_for("large", 0);
  large.options.num_beams = 4;
  large.options.max_new_tokens = 4;
  add(small);
  add(large);
  add(small);
  run_all();
  EXPECT_EQ(order_, (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(executor_->most_rows, 4u);
}

TEST_F(BatchTest, who_can_never_fit_is_told_so) {
  open(4, 60, 100);
  Request beams = request_for("beams", 0);
  beams.options.num_beams = 5;
  const Error rows = error_of(add(beams));
  EXPECT_EQ(rows.kind, ErrorKind::kInvalidArgument);
  EXPECT_NE(rows.message.find("num-beams is 5"), std::string::npos);
  beams.options.num_beams = 4;
  beams.options.max_new_tokens = 50;
  EXPECT_NE(error_of(add(beams)).message.find("tokens of cache"), std::string::npos);
  Request lengthy = request_for(std::string(120, 'a'), 0);
  EXPECT_EQ(error_of(add(lengthy)).kind, ErrorKind::kPromptTooLong);
  EXPECT_TRUE(batch_->idle());
}

TEST_F(BatchTest, cancelling_keeps_what_there_is) {
  open();
  executor_->eos_bias = -100;
  const size_t running = add(request_for("running"));
  Request beams = request_for("beams");
  beams.options.num_beams = 3;
  const size_t searching = add(beams);
  batch_->step();
  batch_->step();
  const size_t waiting = add(request_for("waiting"));
  batch_->cancel(running + 1);
  batch_->cancel(waiting + 1);
  batch_->cancel(searching + 1);
  batch_->cancel(999);
  EXPECT_TRUE(batch_->idle());
  EXPECT_EQ(description_of(running).finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(description_of(running).token_ids.size(), 2u);
  EXPECT_EQ(description_of(searching).token_ids.size(), 2u);
  EXPECT_EQ(error_of(waiting).kind, ErrorKind::kCancelled);
  run_all();
}

TEST_F(BatchTest, closing_ends_everything) {
  open(2);
  executor_->eos_bias = -100;
  for (int i = 0; i < 5; ++i) {
    add(request_for("text"));
  }
  batch_->step();
  batch_->close();
  EXPECT_EQ(order_.size(), 5u);
  run_all();
}

TEST_F(BatchTest, a_failed_step_fails_those_in_it_and_no_others) {
  open(2);
  const size_t first = add(request_for("first"));
  const size_t second = add(request_for("second"));
  const size_t third = add(request_for("third"));
  executor_->before_run = [&](const StepPlan&) {
    if (executor_->steps == 1) {
      throw Failure(ErrorKind::kInternal, "broken");
    }
  };
  run_all();
  EXPECT_EQ(error_of(first).message, "broken");
  EXPECT_EQ(error_of(second).message, "broken");
  EXPECT_TRUE(results_[third]->ok());
}

TEST_F(BatchTest, without_memory_only_those_fail_that_fail_alone) {
  open();
  std::vector<size_t> places;
  for (int i = 0; i < 5; ++i) {
    places.push_back(add(request_for(i == 3 ? "elephantine" : "mouse", 1)));
  }
  executor_->before_run = [&](const StepPlan& plan) {
    size_t tokens = plan.decodes.size();
    for (const PromptPart& part : plan.prompts) {
      tokens += part.ids->size();
    }
    if (tokens > 12) {
      throw std::bad_alloc();
    }
  };
  executor_->before_encode = [&](size_t pictures) {
    if (pictures > 1) {
      throw Failure(ErrorKind::kOutOfMemory, "too many pictures");
    }
  };
  run_all();
  for (size_t i = 0; i < places.size(); ++i) {
    if (i == 3) {
      EXPECT_EQ(error_of(places[i]).kind, ErrorKind::kOutOfMemory);
    } else {
      EXPECT_EQ(description_of(places[i]).token_ids, description_of(places[0]).token_ids);
    }
  }
}

TEST_F(BatchTest, a_failed_encode_fails_those_with_pictures) {
  open();
  const size_t with = add(request_for("with", 1));
  const size_t without = add(request_for("without", 0));
  executor_->before_encode = [](size_t) { throw std::runtime_error("tower"); };
  run_all();
  EXPECT_EQ(error_of(with).kind, ErrorKind::kInternal);
  EXPECT_NE(error_of(with).message.find("tower"), std::string::npos);
  EXPECT_TRUE(results_[without]->ok());
}

TEST_F(BatchTest, a_lost_device_fails_everything_from_then_on) {
  open(1);
  const size_t running = add(request_for("running"));
  const size_t waiting = add(request_for("waiting"));
  executor_->before_run = [](const StepPlan&) {
    throw Failure(ErrorKind::kDevice, "the GPU is gone");
  };
  run_all();
  EXPECT_EQ(error_of(running).kind, ErrorKind::kDevice);
  EXPECT_EQ(error_of(waiting).message, "the GPU is gone");
  EXPECT_EQ(error_of(add(request_for("later"))).message, "the GPU is gone");
}

TEST_F(BatchTest, scores_that_are_not_numbers_are_an_error) {
  open();
  executor_->eos_bias = std::numeric_limits<float>::quiet_NaN();
  const size_t greedy = add(request_for("greedy"));
  Request request = request_for("beams");
  request.options.num_beams = 2;
  const size_t beams = add(request);
  run_all();
  EXPECT_NE(error_of(greedy).message.find("not finite"), std::string::npos);
  EXPECT_NE(error_of(beams).message.find("not finite"), std::string::npos);
}

TEST_F(BatchTest, traces_are_written_with_the_ids_or_forgotten) {
  open();
  Request request = request_for("trace me");
  request.trace_path = "t1";
  const size_t place = add(request);
  const size_t twin = add(request);
  request.trace_path = "t2";
  const size_t cut = add(request);
  EXPECT_EQ(error_of(twin).kind, ErrorKind::kInvalidArgument);
  run_all();
  const std::string count = std::to_string(description_of(place).token_ids.size());
  EXPECT_EQ(executor_->written["t1"], "pictures prompt " + count);
  EXPECT_TRUE(results_[cut]->ok());
  EXPECT_TRUE(executor_->traces.empty());

  request.trace_path = "t3";
  executor_->fail_trace = true;
  const size_t unwritten = add(request);
  run_all();
  EXPECT_EQ(error_of(unwritten).kind, ErrorKind::kIo);

  request.trace_path = "t4";
  executor_->before_run = [](const StepPlan&) { throw Failure(ErrorKind::kInternal, "broken"); };
  add(request);
  run_all();
  EXPECT_TRUE(executor_->traces.empty());
  EXPECT_EQ(executor_->written.size(), 2u);
}

TEST_F(BatchTest, min_new_tokens_keeps_the_end_away) {
  open();
  executor_->eos_bias = 100;
  Request request = request_for("long");
  EXPECT_EQ(request.options.max_new_tokens, 12);
  const size_t brief = add(request);
  request.options.min_new_tokens = 5;
  const size_t longer = add(request);
  request.options.num_beams = 3;
  const size_t beams = add(request);
  run_all();
  EXPECT_EQ(description_of(brief).token_ids, (std::vector<int64_t>{test::kEos}));
  EXPECT_EQ(description_of(longer).token_ids.size(), 6u);
  EXPECT_EQ(description_of(longer).finish_reason, FinishReason::kStop);
  EXPECT_GE(description_of(beams).token_ids.size(), 6u);
  EXPECT_TRUE(description_of(beams).sequence_score.has_value());
}

TEST_F(BatchTest, a_stop_string_stays_in_the_text) {
  open();
  executor_->eos_bias = -100;
  const size_t free_running = add(request_for("words"));
  run_all();
  const std::string text = description_of(free_running).text;
  Request request = request_for("words");
  request.options.stop = {text.substr(2, 3)};
  const size_t stopped = add(request);
  run_all();
  EXPECT_EQ(description_of(stopped).finish_reason, FinishReason::kStopString);
  EXPECT_NE(description_of(stopped).text.find(request.options.stop[0]), std::string::npos);
  EXPECT_EQ(text.rfind(description_of(stopped).text, 0), 0u);
}

// What a step's plan foretells of the next one, checked against that: every row that goes on is
// found again as the sequence that it was, one slot longer.
class Foretold {
 public:
  void see(const StepPlan& plan) {
    if (slots_ && plan.prompts.empty()) {
      const auto rows = rows_ahead(*slots_, plan.decodes);
      ASSERT_TRUE(rows) << "a sequence was not foreseen";
      for (size_t i = 0; i < rows->size(); ++i) {
        SlotTable before = *plan.decodes[i].slots;
        before.pop_back();
        EXPECT_EQ(before, tables_.at(static_cast<size_t>((*rows)[i])));
      }
      ++found;
    }
    slots_.reset();
    if (!plan.prompts.empty() || plan.decodes.size() != plan.choices.size()) {
      return;
    }
    std::vector<int64_t> rows;
    tables_.clear();
    for (const DecodePart& part : plan.decodes) {
      rows.push_back(static_cast<int64_t>(rows.size()));
      tables_.push_back(*part.slots);
    }
    slots_ = slots_ahead(plan.decodes, plan.choices, rows, static_cast<int64_t>(rows.size()));
  }

  int found = 0;

 private:
  std::optional<std::vector<int32_t>> slots_;
  std::vector<SlotTable> tables_;
};

TEST_F(BatchTest, plans_foretell_who_goes_on_whoever_ends_joins_or_is_cancelled) {
  std::mt19937 random(20261126);
  int found = 0;
  for (int round = 0; round < 30; ++round) {
    open(8, 300);
    executor_->look_ahead();
    executor_->eos_bias = 0.5f;
    Foretold foretold;
    executor_->before_run = [&](const StepPlan& plan) { foretold.see(plan); };
    const size_t first = results_.size();
    for (int step = 0; step < 40; ++step) {
      if (random() % 4 == 0) {
        Request request = request_for("some words", 1, static_cast<uint8_t>(random() % 20));
        const int most = 1 + static_cast<int>(random() % 12);
        request.options.max_new_tokens = most;
        if (random() % 2 == 0) {
          request.options.min_new_tokens = static_cast<int>(random() % static_cast<uint32_t>(most));
        }
        if (random() % 8 == 0) {
          request.options.no_repeat_ngram_size = 2;
        }
        if (random() % 4 == 0) {
          request.options.repetition_penalty = 1.2;
        }
        if (random() % 10 == 0) {
          request.options.num_beams = 2;
        }
        add(std::move(request));
      }
      if (random() % 9 == 0 && results_.size() > first) {
        batch_->cancel(first + random() % (results_.size() - first) + 1);
      }
      batch_->step();
    }
    run_all();
    found += foretold.found;
  }
  EXPECT_GT(found, 100);
}

TEST_F(BatchTest, looking_ahead_changes_no_text) {
  std::vector<std::vector<int64_t>> texts[2];
  for (const bool ahead : {false, true}) {
    open();
    if (ahead) {
      executor_->look_ahead();
    }
    const size_t first = results_.size();
    for (int i = 0; i < 6; ++i) {
      Request request = request_for("word", 1, static_cast<uint8_t>(30 * i));
      request.options.max_new_tokens = 4 + i;
      request.options.temperature = i % 2;
      request.options.seed = 7;
      request.options.repetition_penalty = i % 3 == 0 ? 1.3 : 1;
      add(std::move(request));
      batch_->step();
    }
    run_all();
    for (size_t place = first; place < results_.size(); ++place) {
      texts[ahead].push_back(description_of(place).token_ids);
    }
  }
  EXPECT_EQ(texts[0], texts[1]);
}

TEST(LookAhead, is_not_possible_where_a_row_may_go_on_another_way) {
  const SlotTable one = {0, 1}, two = {4, 5};
  std::vector<DecodePart> decodes = {{7, &one, 2}, {8, &two, 6}};
  std::vector<Choice> choices(2);
  choices[0].next_alike = choices[1].next_alike = true;
  const std::vector<int64_t> rows = {3, 1};
  EXPECT_EQ(slots_ahead(decodes, choices, rows, 5), (std::vector<int32_t>{-1, 6, -1, 2, -1}));
  choices[1].next_alike = false;
  EXPECT_FALSE(slots_ahead(decodes, choices, rows, 5));
  choices[1].last = true;
  EXPECT_EQ(slots_ahead(decodes, choices, rows, 5), (std::vector<int32_t>{-1, -1, -1, 2, -1}));
  choices[0].last = true;
  EXPECT_FALSE(slots_ahead(decodes, choices, rows, 5));
}

TEST(LookAhead, finds_rows_by_the_slots_that_were_kept_for_them) {
  const std::vector<int32_t> slots = {5, -1, 9, 2};
  const SlotTable first = {3, 5}, last = {8, 2}, other = {8, 7};
  EXPECT_EQ(rows_ahead(slots, std::vector<DecodePart>{{1, &first}, {1, &last}}),
            (std::vector<int64_t>{0, 3}));
  EXPECT_FALSE(rows_ahead(slots, std::vector<DecodePart>{{1, &first}, {1, &other}}));
}

}  // namespace
}  // namespace vlm
