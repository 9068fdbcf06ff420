// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fake_model.h"

namespace vlm {
namespace {

using test::FakeExecutor;
using test::FakePreparer;
using test::request_for;

/// A promise for one request's result; `done` twice is a failed test.
struct Outcome {
  std::promise<Result<Description>> promise;
  std::future<Result<Description>> future = promise.get_future();

  Callbacks callbacks() {
    Callbacks result;
    result.done = [this](Result<Description> description) {
      EXPECT_NO_THROW(promise.set_value(std::move(description)));
    };
    return result;
  }
  Result<Description> wait() {
    if (future.wait_for(std::chrono::seconds(60)) != std::future_status::ready) {
      return Error{ErrorKind::kInternal, "no result within a minute", {}};
    }
    return future.get();
  }
};

struct Fixture {
  explicit Fixture(int64_t rows = 8, int64_t slots = 600, int64_t context = 120) {
    auto made_executor = std::make_unique<FakeExecutor>(rows, slots, context);
    auto made_preparer = std::make_unique<FakePreparer>();
    executor = made_executor.get();
    preparer = made_preparer.get();
    engine = std::make_unique<Scheduler>(test::fake_scheduler_model(std::move(made_preparer)),
                                         std::move(made_executor));
  }

  Result<Description> describe(Request request) {
    Outcome outcome;
    const Result<RequestId> id = engine->submit(std::move(request), outcome.callbacks());
    if (!id) {
      return id.error();
    }
    return outcome.wait();
  }

  FakeExecutor* executor = nullptr;
  FakePreparer* preparer = nullptr;
  std::unique_ptr<Scheduler> engine;
};

/// Blocks a thread until opened.
class Gate {
 public:
  void open() { promise_.set_value(); }
  void wait() const { future_.wait(); }

 private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future().share();
};

TEST(Scheduler, describes_and_tells_partial_texts) {
  Fixture fixture;
  fixture.executor->eos_bias = -100;
  Outcome outcome;
  std::vector<std::string> partial;
  Callbacks callbacks = outcome.callbacks();
  callbacks.partial = [&](const std::string& text) { partial.push_back(text); };
  ASSERT_TRUE(fixture.engine->submit(request_for("tell me"), std::move(callbacks)));
  const Result<Description> result = outcome.wait();
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_FALSE(partial.empty());
  for (size_t i = 1; i < partial.size(); ++i) {
    EXPECT_GT(partial[i].size(), partial[i - 1].size());
    EXPECT_EQ(partial[i].rfind(partial[i - 1], 0), 0u) << "texts only grow";
  }
  EXPECT_EQ(result->text.rfind(partial.back(), 0), 0u);
}

TEST(Scheduler, beams_tell_no_partial_text) {
  Fixture fixture;
  Outcome outcome;
  std::atomic<int> partial = 0;
  Callbacks callbacks = outcome.callbacks();
  callbacks.partial = [&](const std::string&) { ++partial; };
  Request request = request_for("tell me");
  request.options.num_beams = 3;
  ASSERT_TRUE(fixture.engine->submit(request, std::move(callbacks)));
  EXPECT_TRUE(outcome.wait());
  EXPECT_EQ(partial, 0);
}

TEST(Scheduler, refusals_come_back_at_once) {
  Fixture fixture;
  Request request = request_for("text");
  request.options.top_p = 2;
  EXPECT_EQ(fixture.describe(request).error().kind, ErrorKind::kInvalidArgument);
  request = request_for("text");
  request.prompt.format = "unheard-of";
  EXPECT_EQ(fixture.describe(request).error().kind, ErrorKind::kInvalidArgument);
  request = request_for("text");
  request.frames[0].width = 0;
  EXPECT_EQ(fixture.describe(request).error().kind, ErrorKind::kInvalidArgument);
}

TEST(Scheduler, what_fails_while_preparing_arrives_as_result) {
  Fixture fixture;
  fixture.preparer->before = [](const Request& request) {
    if (request.prompt.turns.back().text == "bad") {
      throw std::runtime_error("cannot read this");
    }
  };
  const Result<Description> bad = fixture.describe(request_for("bad"));
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("cannot read this"), std::string::npos);
  EXPECT_EQ(fixture.describe(request_for(std::string(200, 'a'))).error().kind,
            ErrorKind::kPromptTooLong);
  EXPECT_TRUE(fixture.describe(request_for("good")));
}

TEST(Scheduler, a_prompt_id_that_the_model_does_not_know_is_an_error) {
  class WrongPreparer : public Preparer {
   public:
    Result<Prepared> prepare(Request&) override {
      Prepared prepared;
      prepared.prompt.ids = {1, test::kVocab};
      return prepared;
    }
  };
  Scheduler engine(test::fake_scheduler_model(std::make_unique<WrongPreparer>()),
                   std::make_unique<FakeExecutor>(4, 100, 50));
  Outcome outcome;
  ASSERT_TRUE(engine.submit(request_for("any"), outcome.callbacks()));
  const Result<Description> result = outcome.wait();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::kInvalidModel);
  EXPECT_NE(result.error().message.find("gives id 40"), std::string::npos);
}

TEST(Scheduler, a_callback_that_throws_harms_nobody) {
  Fixture fixture;
  Callbacks callbacks;
  callbacks.partial = [](const std::string&) { throw 1; };
  callbacks.done = [](const Result<Description>&) { throw std::runtime_error("host"); };
  ASSERT_TRUE(fixture.engine->submit(request_for("one"), callbacks));
  EXPECT_TRUE(fixture.describe(request_for("two")));
}

TEST(Scheduler, callbacks_may_submit_and_cancel) {
  Fixture fixture;
  Outcome second;
  Callbacks callbacks;
  callbacks.done = [&](const Result<Description>&) {
    const auto id = fixture.engine->submit(request_for("again"), second.callbacks());
    fixture.engine->cancel(*id);
  };
  ASSERT_TRUE(fixture.engine->submit(request_for("once"), callbacks));
  const Result<Description> result = second.wait();
  EXPECT_TRUE(result || result.error().kind == ErrorKind::kCancelled);
}

TEST(Scheduler, cancelled_before_the_model_has_it) {
  Fixture fixture;
  Gate gate;
  std::promise<void> preparing;
  fixture.preparer->before = [&](const Request& request) {
    if (request.prompt.turns.back().text == "first") {
      preparing.set_value();
      gate.wait();
    }
  };
  Outcome first, second;
  const auto first_id = fixture.engine->submit(request_for("first"), first.callbacks());
  const auto second_id = fixture.engine->submit(request_for("second"), second.callbacks());
  preparing.get_future().wait();
  fixture.engine->cancel(*second_id);
  EXPECT_EQ(second.wait().error().kind, ErrorKind::kCancelled) << "while it waits its turn";
  fixture.engine->cancel(*first_id);
  gate.open();
  EXPECT_EQ(first.wait().error().kind, ErrorKind::kCancelled) << "while it is prepared";
  EXPECT_EQ(fixture.executor->steps, 0);
}

TEST(Scheduler, closing_answers_everybody) {
  std::vector<std::unique_ptr<Outcome>> outcomes;
  {
    Fixture fixture(2);
    fixture.executor->eos_bias = -100;
    fixture.executor->before_run = [](const StepPlan&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    for (int i = 0; i < 20; ++i) {
      outcomes.push_back(std::make_unique<Outcome>());
      Request request = request_for("closing");
      request.options.max_new_tokens = 60;
      ASSERT_TRUE(fixture.engine->submit(std::move(request), outcomes.back()->callbacks()));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  for (const auto& outcome : outcomes) {
    const Result<Description> result = outcome->wait();
    if (result) {
      EXPECT_EQ(result->finish_reason, FinishReason::kCancelled);
    } else {
      EXPECT_EQ(result.error().kind, ErrorKind::kCancelled);
    }
  }
}

TEST(Scheduler, a_lost_device_refuses_later_requests) {
  Fixture fixture;
  fixture.executor->before_run = [](const StepPlan&) {
    throw Failure(ErrorKind::kDevice, "the GPU is gone");
  };
  EXPECT_EQ(fixture.describe(request_for("first")).error().message, "the GPU is gone");
  EXPECT_EQ(fixture.describe(request_for("second")).error().message, "the GPU is gone");
}

/// Says when it goes.
struct WatchedExecutor : FakeExecutor {
  explicit WatchedExecutor(bool& end) : FakeExecutor(8, 600, 120), gone(end) {}
  ~WatchedExecutor() override { gone = true; }
  bool& gone;
};

// Nothing can be given back to a lost device, and whoever tries ends the process.
TEST(Scheduler, what_lies_on_a_lost_device_is_left_alone) {
  for (const ErrorKind kind : {ErrorKind::kOutOfMemory, ErrorKind::kDevice}) {
    bool gone = false;
    auto executor = std::make_unique<WatchedExecutor>(gone);
    executor->before_run = [kind](const StepPlan&) { throw Failure(kind, "no more"); };
    auto engine = std::make_unique<Scheduler>(test::fake_scheduler_model(), std::move(executor));
    Outcome outcome;
    ASSERT_TRUE(engine->submit(request_for("text"), outcome.callbacks()));
    EXPECT_EQ(outcome.wait().error().kind, kind);
    engine.reset();
    EXPECT_EQ(gone, kind == ErrorKind::kOutOfMemory);
  }
}

TEST(Scheduler, a_lost_device_is_told_to_every_stream) {
  Fixture fixture;
  Gate gate;
  fixture.executor->before_run = [&](const StepPlan&) {
    gate.wait();
    throw Failure(ErrorKind::kDevice, "the GPU is gone");
  };
  std::vector<std::unique_ptr<Outcome>> outcomes;
  for (uint64_t stream = 0; stream < 4; ++stream) {
    Request request = request_for("text");
    request.stream = stream;
    outcomes.push_back(std::make_unique<Outcome>());
    ASSERT_TRUE(fixture.engine->submit(std::move(request), outcomes.back()->callbacks()));
  }
  gate.open();
  for (const auto& outcome : outcomes) {
    EXPECT_EQ(outcome->wait().error().kind, ErrorKind::kDevice);
  }
}

TEST(Scheduler, streams_take_turns) {
  Fixture fixture(1);
  Gate gate;
  fixture.preparer->before = [&](const Request&) { gate.wait(); };
  std::mutex mutex;
  std::vector<uint64_t> order;
  std::vector<std::promise<void>> done(12);
  for (size_t i = 0; i < 12; ++i) {
    Request request = request_for("turn", 0);
    request.stream = i < 9 ? 1 : 2;
    Callbacks callbacks;
    callbacks.done = [&, i, stream = request.stream](const Result<Description>&) {
      {
        const std::lock_guard lock(mutex);
        order.push_back(stream);
      }
      done[i].set_value();
    };
    ASSERT_TRUE(fixture.engine->submit(std::move(request), std::move(callbacks)));
  }
  gate.open();
  for (std::promise<void>& one : done) {
    one.get_future().wait();
  }
  // The first may have been taken before stream 2 had anything.
  const std::vector<uint64_t> head(order.begin(), order.begin() + 7);
  EXPECT_EQ(std::count(head.begin(), head.end(), 2u), 3);
}

TEST(Scheduler, prepares_no_more_pictures_than_take_modest_memory) {
  Fixture fixture(1);
  constexpr int64_t kBytes = int64_t{32} << 20;
  constexpr int kRequests = 20;
  fixture.preparer->width = kBytes / static_cast<int64_t>(sizeof(float));
  std::atomic<int> prepared = 0;
  fixture.preparer->before = [&](const Request&) { ++prepared; };
  Gate gate;
  fixture.executor->before_encode = [&](size_t) { gate.wait(); };
  std::vector<Outcome> outcomes(kRequests);
  for (Outcome& outcome : outcomes) {
    ASSERT_TRUE(fixture.engine->submit(request_for("look"), outcome.callbacks()));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  // As many as there may be, and one that began before they were counted.
  EXPECT_LE(prepared, 5);
  gate.open();
  for (Outcome& outcome : outcomes) {
    EXPECT_TRUE(outcome.wait());
  }
  EXPECT_EQ(prepared, kRequests);
}

TEST(Scheduler, sampling_depends_on_seed_and_sequence_alone) {
  Fixture fixture;
  Request request = request_for("draw");
  request.options.temperature = 1.5;
  request.options.seed = 11;
  const auto ids = [&] { return fixture.describe(request)->token_ids; };
  const std::vector<int64_t> first = ids();
  EXPECT_EQ(ids(), first);
  request.sequence = 1;
  EXPECT_NE(ids(), first);
  request.sequence = 0;
  request.options.seed = 12;
  EXPECT_NE(ids(), first);
}

Request random_request(std::mt19937& random) {
  std::string text;
  for (size_t i = 1 + random() % 20; i > 0; --i) {
    text += static_cast<char>('a' + random() % 26);
  }
  Request request = request_for(text, random() % 3, static_cast<uint8_t>(random() % 200));
  Options& options = request.options;
  request.stream = random() % 4;
  request.sequence = random() % 5;
  options.max_new_tokens = 1 + static_cast<int>(random() % 25);
  options.seed = random() % 3;
  if (random() % 3 == 0) {
    options.num_beams = 2 + static_cast<int>(random() % 3);
    options.length_penalty = static_cast<double>(random() % 3);
    options.early_stopping = static_cast<EarlyStopping>(random() % 3);
  }
  if (random() % 3 == 0) {
    options.temperature = 0.5 + static_cast<double>(random() % 4) / 2;
  }
  if (random() % 3 == 0) {
    options.repetition_penalty = 1.2;
    options.no_repeat_ngram_size = 2;
  }
  if (random() % 4 == 0) {
    options.stop = {"a", "op"};
  }
  return request;
}

bool same_answer(const Description& a, const Description& b) {
  return a.token_ids == b.token_ids && a.logprobs == b.logprobs && a.text == b.text &&
         a.sequence_score == b.sequence_score && a.finish_reason == b.finish_reason;
}

// Whatever runs beside a request, and whenever it arrives, its answer is the one it gets alone.
TEST(Scheduler, any_mix_gives_each_request_its_own_answer) {
  std::mt19937 random(987654);
  std::vector<Request> requests;
  std::vector<Description> alone;
  {
    Fixture fixture;
    for (int i = 0; i < 120; ++i) {
      requests.push_back(random_request(random));
      const Result<Description> result = fixture.describe(requests.back());
      ASSERT_TRUE(result) << result.error().message;
      alone.push_back(*result);
    }
  }
  struct Limits {
    int64_t rows, slots, prompt_chunk;
  };
  for (const auto& [rows, slots, prompt_chunk] :
       {Limits{16, 2000, 120}, {16, 2000, 3}, {4, 150, 7}}) {
    Fixture fixture(rows, slots);
    fixture.executor->take_prompts_in_chunks(prompt_chunk);
    fixture.executor->encode_pieces = 3;
    std::vector<std::unique_ptr<Outcome>> outcomes;
    for (size_t i = 0; i < requests.size(); ++i) {
      outcomes.push_back(std::make_unique<Outcome>());
    }
    std::vector<std::thread> hosts;
    for (size_t host = 0; host < 4; ++host) {
      hosts.emplace_back([&, host] {
        std::mt19937 pauses(static_cast<unsigned>(host));
        for (size_t i = host; i < requests.size(); i += 4) {
          EXPECT_TRUE(fixture.engine->submit(requests[i], outcomes[i]->callbacks()));
          std::this_thread::sleep_for(std::chrono::microseconds(pauses() % 800));
        }
      });
    }
    for (std::thread& host : hosts) {
      host.join();
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      const Result<Description> result = outcomes[i]->wait();
      ASSERT_TRUE(result) << i << ": " << result.error().message;
      EXPECT_TRUE(same_answer(*result, alone[i])) << "request " << i;
    }
  }
}

// Cancels and failures at random moments: every request is answered once, and the engine stays
// sound for those that come after.
TEST(Scheduler, survives_cancels_and_failures_at_any_moment) {
  std::mt19937 random(13579);
  Fixture fixture(6, 400);
  std::mt19937 failures(24680);
  fixture.executor->before_run = [&](const StepPlan&) {
    const unsigned kind = failures() % 30;
    if (kind == 0) {
      throw Failure(ErrorKind::kInternal, "now and then");
    }
    if (kind == 1) {
      throw std::bad_alloc();
    }
  };
  std::vector<std::unique_ptr<Outcome>> outcomes;
  for (int i = 0; i < 200; ++i) {
    outcomes.push_back(std::make_unique<Outcome>());
    const auto id = fixture.engine->submit(random_request(random), outcomes.back()->callbacks());
    ASSERT_TRUE(id);
    if (random() % 2 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
    }
    if (random() % 3 == 0) {
      fixture.engine->cancel(*id - random() % 3);
    }
  }
  int answered = 0;
  for (const auto& outcome : outcomes) {
    const Result<Description> result = outcome->wait();
    answered += result.ok() || result.error().message != "no result within a minute";
  }
  EXPECT_EQ(answered, 200);
  // A leaked slot or row would make this one too large.
  Request full = request_for(std::string(59, 'a'), 0);
  full.options.max_new_tokens = 56;
  full.options.num_beams = 6;
  full.options.seed = 1;
  fixture.executor->before_run = nullptr;
  const Result<Description> result = fixture.describe(full);
  EXPECT_TRUE(result) << result.error().message;
}

}  // namespace
}  // namespace vlm
