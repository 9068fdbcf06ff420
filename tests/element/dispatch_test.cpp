// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmdispatch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#define GST_CAT_DEFAULT gst_vlm_debug

namespace gstvlm {
namespace {

/// An engine that answers when the test says so.
class Manual : public vlm::Engine {
 public:
  const vlm::ModelInfo& info() const override { return info_; }
  vlm::Result<vlm::RequestId> submit(vlm::Request request, vlm::Callbacks callbacks) override {
    if (refuse) {
      return vlm::Error{vlm::ErrorKind::kInvalidArgument, "refused", ""};
    }
    const Lock lock(mutex);
    sequences.push_back(request.sequence);
    waiting[++last] = std::move(callbacks);
    return last;
  }
  void cancel(vlm::RequestId id) override {
    const Lock lock(mutex);
    cancelled.push_back(id);
  }
  void answer(vlm::RequestId id, const std::string& text) {
    vlm::Callbacks callbacks;
    {
      const Lock lock(mutex);
      callbacks = std::move(waiting.at(id));
      waiting.erase(id);
    }
    vlm::Description description;
    description.text = text;
    callbacks.done(std::move(description));
  }

  Mutex mutex;
  std::atomic<bool> refuse = false;
  std::map<vlm::RequestId, vlm::Callbacks> waiting;
  std::vector<uint64_t> sequences;
  std::vector<vlm::RequestId> cancelled;
  vlm::RequestId last = 0;

 private:
  vlm::ModelInfo info_;
};

class Dispatch : public ::testing::Test {
 protected:
  void SetUp() override {
    gst_init(nullptr, nullptr);
    engine = std::make_shared<Manual>();
    dispatcher.reset();
    dispatcher.start();
    dispatcher.set_engine(engine);
  }
  Job job(uint64_t serial) {
    Job one;
    one.window.serial = serial;
    one.partial = true;
    return one;
  }
  /// What the thread that prepares requests does, until nothing is left for the engine.
  void feed() {
    while (std::optional<Work> work = dispatcher.take(Clock::now())) {
      dispatcher.submit(std::move(*work));
    }
  }
  Offer recorded(uint64_t serial) {
    const Offer offer = dispatcher.offer_recorded(job(serial), 8);
    feed();
    dispatcher.close_window(serial, {serial, 1, serial, serial});
    return offer;
  }
  Outcome next() { return dispatcher.next(Clock::now() + std::chrono::milliseconds(20)); }
  std::string next_text() {
    const Outcome outcome = next();
    return outcome.kind == Outcome::Kind::kResult && outcome.result ? outcome.result->text : "-";
  }

  std::shared_ptr<Manual> engine;
  Dispatcher dispatcher;
};

TEST_F(Dispatch, results_come_in_the_order_of_the_windows) {
  recorded(0);
  recorded(1);
  recorded(2);
  engine->answer(3, "c");
  engine->answer(1, "a");
  EXPECT_EQ(next_text(), "a");
  EXPECT_EQ(next_text(), "-");
  engine->answer(2, "b");
  EXPECT_EQ(next_text(), "b");
  EXPECT_EQ(next_text(), "c");
  EXPECT_EQ(engine->sequences, (std::vector<uint64_t>{0, 1, 2}));
}

TEST_F(Dispatch, result_waits_for_the_end_of_its_window) {
  ASSERT_EQ(dispatcher.offer_recorded(job(0), 8), Offer::kAccepted);
  feed();
  engine->answer(1, "a");
  EXPECT_EQ(next_text(), "-");
  dispatcher.close_window(0, {7, 8, 9, 10});
  const Outcome outcome = next();
  EXPECT_EQ(outcome.window.times.duration, 8u);
}

TEST_F(Dispatch, events_keep_their_place) {
  recorded(0);
  dispatcher.put_event(EventPtr(gst_event_new_eos()));
  recorded(1);
  engine->answer(2, "b");
  EXPECT_EQ(next().kind, Outcome::Kind::kTick);
  engine->answer(1, "a");
  EXPECT_EQ(next_text(), "a");
  EXPECT_EQ(next().kind, Outcome::Kind::kEvent);
  EXPECT_EQ(next_text(), "b");
}

TEST_F(Dispatch, gaps_behind_each_other_are_one) {
  recorded(0);
  for (uint64_t i = 0; i < 3; ++i) {
    dispatcher.put_gap(100 + i * 10, 10);
  }
  dispatcher.put_gap(500, 10);
  engine->answer(1, "a");
  EXPECT_EQ(next_text(), "a");
  for (const auto& [from, length] : {std::pair<GstClockTime, GstClockTime>{100, 30}, {500, 10}}) {
    const Outcome outcome = next();
    ASSERT_EQ(outcome.kind, Outcome::Kind::kEvent);
    GstClockTime start = 0;
    GstClockTime duration = 0;
    gst_event_parse_gap(outcome.event.get(), &start, &duration);
    EXPECT_EQ(start, from);
    EXPECT_EQ(duration, length);
  }
  EXPECT_EQ(next().kind, Outcome::Kind::kTick);
}

TEST_F(Dispatch, live_keeps_one_and_the_newest) {
  for (uint64_t serial = 0; serial < 5; ++serial) {
    EXPECT_EQ(dispatcher.offer_live(job(serial)), Offer::kAccepted);
  }
  feed();
  EXPECT_EQ(engine->last, 1u);
  EXPECT_EQ(dispatcher.counts().waiting, 2u);
  EXPECT_EQ(dispatcher.counts().passed_over, 3u);
  engine->answer(1, "first");
  EXPECT_EQ(next_text(), "first");
  feed();
  EXPECT_EQ(engine->last, 2u);
  engine->answer(2, "newest");
  const Outcome outcome = next();
  EXPECT_EQ(outcome.window.serial, 4u);
  EXPECT_EQ(outcome.window.index, 4u);
}

TEST_F(Dispatch, extras_do_not_wait_their_turn) {
  recorded(0);
  Job extra = job(0);
  extra.window.extra = true;
  ASSERT_EQ(dispatcher.offer_extra(std::move(extra)), Offer::kAccepted);
  feed();
  engine->answer(2, "extra");
  EXPECT_EQ(next_text(), "extra");
  engine->answer(1, "window");
  EXPECT_EQ(next_text(), "window");
  EXPECT_EQ(dispatcher.counts().windows, 1u);
}

TEST_F(Dispatch, one_extra_is_with_the_engine_and_the_newest_of_the_others_waits) {
  for (uint64_t index = 0; index < 4; ++index) {
    Job extra = job(index);
    extra.window.extra = true;
    ASSERT_EQ(dispatcher.offer_extra(std::move(extra)), Offer::kAccepted);
    feed();
  }
  EXPECT_EQ(engine->last, 1u);
  engine->answer(1, "first");
  EXPECT_EQ(next_text(), "first");
  feed();
  EXPECT_EQ(engine->last, 2u);
  engine->answer(2, "newest");
  EXPECT_EQ(next().window.serial, 3u);
}

TEST_F(Dispatch, refusal_is_a_result_in_its_place) {
  engine->refuse = true;
  EXPECT_EQ(recorded(0), Offer::kAccepted);
  const Outcome outcome = next();
  ASSERT_EQ(outcome.kind, Outcome::Kind::kResult);
  EXPECT_EQ(outcome.result.error().message, "refused");
}

TEST_F(Dispatch, flush_cancels_and_late_answers_are_dropped) {
  recorded(0);
  recorded(1);
  dispatcher.flush();
  EXPECT_EQ(engine->cancelled, (std::vector<vlm::RequestId>{1, 2}));
  EXPECT_EQ(recorded(2), Offer::kFlushing);
  dispatcher.resume();
  engine->answer(1, "late");
  EXPECT_EQ(next().kind, Outcome::Kind::kTick);
  EXPECT_EQ(recorded(3), Offer::kAccepted);
  EXPECT_EQ(dispatcher.counts().windows, 3u);
  EXPECT_EQ(dispatcher.counts().passed_over, 2u);
}

// A free engine's window is its own from the start, not the place of the next one.
TEST_F(Dispatch, live_window_of_a_free_engine_is_not_replaced_while_it_is_prepared) {
  ASSERT_EQ(dispatcher.offer_live(job(0)), Offer::kAccepted);
  ASSERT_EQ(dispatcher.offer_live(job(1)), Offer::kAccepted);
  EXPECT_EQ(dispatcher.counts().passed_over, 0u);
  feed();
  engine->answer(1, "first");
  feed();
  engine->answer(2, "second");
  EXPECT_EQ(next_text(), "first");
  EXPECT_EQ(next_text(), "second");
}

TEST_F(Dispatch, window_dropped_while_it_is_prepared_never_reaches_the_engine) {
  ASSERT_EQ(dispatcher.offer_recorded(job(0), 8), Offer::kAccepted);
  std::optional<Work> work = dispatcher.take(Clock::now());
  ASSERT_TRUE(work.has_value());
  EXPECT_FALSE(dispatcher.take(Clock::now()).has_value());
  dispatcher.flush();
  dispatcher.resume();
  dispatcher.submit(std::move(*work));
  EXPECT_EQ(engine->last, 0u);
  EXPECT_EQ(next().kind, Outcome::Kind::kTick);
}

TEST_F(Dispatch, window_that_cannot_be_prepared_fails_in_its_place) {
  recorded(0);
  ASSERT_EQ(dispatcher.offer_recorded(job(1), 8), Offer::kAccepted);
  dispatcher.close_window(1, {1, 1, 1, 1});
  std::optional<Work> work = dispatcher.take(Clock::now());
  ASSERT_TRUE(work.has_value());
  dispatcher.fail_window(work->token, {vlm::ErrorKind::kInvalidArgument, "unreadable", ""});
  EXPECT_EQ(next_text(), "-");
  engine->answer(1, "a");
  EXPECT_EQ(next_text(), "a");
  EXPECT_EQ(next().result.error().message, "unreadable");
}

TEST_F(Dispatch, partial_texts_come_once_and_only_the_newest) {
  recorded(0);
  engine->waiting[1].partial("a");
  engine->waiting[1].partial("ab");
  const Outcome outcome = next();
  EXPECT_EQ(outcome.kind, Outcome::Kind::kPartial);
  EXPECT_EQ(outcome.text, "ab");
  EXPECT_EQ(next().kind, Outcome::Kind::kTick);
}

TEST_F(Dispatch, drain_waits_for_what_is_being_delivered) {
  recorded(0);
  engine->answer(1, "a");
  EXPECT_EQ(next_text(), "a");
  EXPECT_EQ(dispatcher.drain(Clock::now() + std::chrono::milliseconds(5)), Offer::kPassedOver);
  EXPECT_EQ(next().kind, Outcome::Kind::kTick);
  EXPECT_EQ(dispatcher.drain(Clock::now() + std::chrono::seconds(5)), Offer::kAccepted);
}

TEST_F(Dispatch, waiting_for_room_or_the_engine_ends_with_stop) {
  dispatcher.set_engine(nullptr);
  for (const bool for_engine : {true, false}) {
    dispatcher.start();
    std::atomic<int> offer = -1;
    std::thread waiter([&] {
      offer = static_cast<int>(for_engine ? dispatcher.wait_engine()
                                          : dispatcher.offer_recorded(job(0), 1));
    });
    dispatcher.stop();
    waiter.join();
    EXPECT_EQ(offer, static_cast<int>(Offer::kFlushing));
  }
}

TEST_F(Dispatch, failure_refuses_and_cancels) {
  recorded(0);
  dispatcher.fail();
  EXPECT_EQ(engine->cancelled.size(), 1u);
  EXPECT_EQ(recorded(1), Offer::kFailed);
  EXPECT_EQ(dispatcher.drain(std::nullopt), Offer::kFailed);
}

TEST_F(Dispatch, engine_is_let_go) {
  recorded(0);
  const std::weak_ptr<Manual> weak = engine;
  Manual* raw = engine.get();
  engine.reset();
  dispatcher.stop();
  raw->answer(1, "late");
  dispatcher.set_engine(nullptr);
  EXPECT_TRUE(weak.expired());
}

}  // namespace
}  // namespace gstvlm
