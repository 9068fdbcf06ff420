// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

#include "element_support.h"

namespace element_test {
namespace {

/// Far above what waking a thread takes, far below what a hang would take.
constexpr gint64 kPromptUs = 200 * 1000;
/// On a busy machine threads may have to wait for a processor that long; not every time.
constexpr int kTries = 10;

/// Microseconds that going to NULL takes.
gint64 stop_us(GstElement* element) {
  const gint64 before = g_get_monotonic_time();
  EXPECT_EQ(gst_element_set_state(element, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  return g_get_monotonic_time() - before;
}

/// Whether a pipeline of this line stops promptly when its element `describe` has come to where
/// `reached` says: in the best of some tries, each of which would hang for more than a minute.
bool stops_promptly(const std::string& line, const std::function<bool(GstElement*)>& reached) {
  for (int i = 0; i < kTries; ++i) {
    Pipeline pipeline(line);
    EXPECT_TRUE(pipeline.play());
    const ElementPtr describe = pipeline["describe"];
    EXPECT_TRUE(eventually([&] { return reached(describe.get()); }));
    const gint64 took_us = stop_us(pipeline.pipeline);
    EXPECT_LT(took_us, 30 * G_USEC_PER_SEC);
    if (took_us < kPromptUs) {
      return true;
    }
  }
  return false;
}

TEST(State, no_state_change_waits_for_the_model) {
  gint64 best_us = G_MAXINT64;
  for (int i = 0; i < kTries && best_us >= kPromptUs; ++i) {
    Pipeline pipeline(
        "videotestsrc is-live=true ! video/x-raw,width=32,height=16 ! "
        "vlmdescribe model=fake:load=100000 ! fakesink");
    const gint64 before = g_get_monotonic_time();
    ASSERT_TRUE(pipeline.play());
    const gint64 played = g_get_monotonic_time();
    best_us = std::min(best_us, std::max(played - before, stop_us(pipeline.pipeline)));
  }
  EXPECT_LT(best_us, kPromptUs);
}

/// Ends the process half-way through a load's step, with its element stopped or playing.
[[noreturn]] void exit_while_loading(bool stopped) {
  auto* pipeline = new Pipeline(
      "videotestsrc is-live=true ! video/x-raw,width=32,height=16 ! "
      "vlmdescribe model=fake:busy=400 ! fakesink");
  const bool played = pipeline->play();
  g_usleep(200 * 1000);
  if (stopped) gst_element_set_state(pipeline->pipeline, GST_STATE_NULL);
  std::exit(played ? 7 : 8);
}

TEST(State, the_process_ends_during_a_load) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(exit_while_loading(true), testing::ExitedWithCode(7), "");
  EXPECT_EXIT(exit_while_loading(false), testing::ExitedWithCode(7), "");
}

/// What came of a message on its way to the application.
struct Heard {
  GstElement* stop = nullptr;  ///< to be stopped by whoever hears it
  std::atomic<bool> begun = false;
  std::atomic<bool> ended = false;
};

GstBusSyncReply hear(GstBus*, GstMessage* message, gpointer data) {
  auto* heard = static_cast<Heard*>(data);
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS && !heard->begun.exchange(true)) {
    if (heard->stop != nullptr) {
      gst_element_set_state(heard->stop, GST_STATE_NULL);
    } else {
      g_usleep(100 * 1000);
    }
    heard->ended = true;
  }
  return GST_BUS_PASS;
}

// A bin does not outlive what is being posted through it, so the element must have come to an end.
TEST(State, nothing_is_being_posted_after_a_stop) {
  Heard heard;
  Pipeline pipeline("videotestsrc ! vlmdescribe ! fakesink");
  gst_bus_set_sync_handler(GST_ELEMENT_BUS(pipeline.pipeline), hear, &heard, nullptr);
  ASSERT_EQ(pipeline.set_state(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  ASSERT_TRUE(eventually([&] { return heard.begun.load(); }));
  ASSERT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  EXPECT_TRUE(heard.ended);
}

TEST(State, whoever_hears_of_a_load_may_stop_it_there) {
  Heard heard;
  Pipeline pipeline("videotestsrc ! vlmdescribe model=fake:load=100000 ! fakesink");
  heard.stop = pipeline.pipeline;
  gst_bus_set_sync_handler(GST_ELEMENT_BUS(pipeline.pipeline), hear, &heard, nullptr);
  ASSERT_EQ(pipeline.set_state(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  EXPECT_TRUE(eventually([&] { return heard.ended.load(); }));
}

/// Stops the pipeline in the thread that brings the first description, and lets go of it where
/// `last` says so.
struct Stopper {
  GstElement* pipeline = nullptr;
  bool last = false;
  std::atomic<bool> heard = false;
  std::atomic<bool> stopped = false;
  std::atomic<int> errors = 0;
};

GstBusSyncReply stop_at_description(GstBus*, GstMessage* message, gpointer data) {
  auto* stopper = static_cast<Stopper*>(data);
  if (gst_message_has_name(message, "vlm-description") && !stopper->heard.exchange(true)) {
    stopper->stopped =
        gst_element_set_state(stopper->pipeline, GST_STATE_NULL) == GST_STATE_CHANGE_SUCCESS;
    if (stopper->last) {
      gst_object_unref(stopper->pipeline);
    }
  }
  stopper->errors += GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR ? 1 : 0;
  gst_message_unref(message);
  return GST_BUS_DROP;
}

const char* const kDescribed =
    "videotestsrc ! video/x-raw,width=32,height=16 ! vlmdescribe interval=100000000 mode=recorded "
    "max-pending=2 ! fakesink";

TEST(State, whoever_hears_of_a_description_may_stop_it_there) {
  Pipeline pipeline(kDescribed);
  for (int i = 0; i < 5; ++i) {
    Stopper stopper;
    stopper.pipeline = pipeline.pipeline;
    GstBus* bus = GST_ELEMENT_BUS(pipeline.pipeline);
    gst_bus_set_sync_handler(bus, stop_at_description, &stopper, nullptr);
    ASSERT_TRUE(pipeline.play());
    EXPECT_TRUE(eventually([&] { return stopper.stopped.load(); }));
    EXPECT_EQ(stopper.errors, 0);
    gst_bus_set_sync_handler(bus, nullptr, nullptr, nullptr);
  }
}

TEST(State, whoever_hears_of_a_description_may_let_go_of_it_there) {
  Stopper stopper;
  stopper.last = true;
  stopper.pipeline = gst_parse_launch(kDescribed, nullptr);
  ASSERT_NE(stopper.pipeline, nullptr);
  std::atomic<bool> gone = false;
  const auto note_end = [](gpointer flag, GObject*) {
    *static_cast<std::atomic<bool>*>(flag) = true;
  };
  g_object_weak_ref(G_OBJECT(stopper.pipeline), note_end, &gone);
  GstBus* bus = gst_element_get_bus(stopper.pipeline);
  gst_bus_set_sync_handler(bus, stop_at_description, &stopper, nullptr);
  gst_element_set_state(stopper.pipeline, GST_STATE_PLAYING);
  EXPECT_TRUE(eventually([&] { return stopper.stopped.load(); }));
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
  gst_object_unref(bus);
}

TEST(State, every_window_is_counted_whenever_a_flush_comes) {
  Rig rig("mode=recorded interval=40000000 max-pending=3");
  rig.begin();
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(rig.push_range(0, 120 * GST_MSECOND), GST_FLOW_OK);
    g_usleep(static_cast<gulong>(i % 20 * 50));
    ASSERT_TRUE(rig.push_event(gst_event_new_flush_start()));
    ASSERT_TRUE(rig.push_event(gst_event_new_flush_stop(TRUE)));
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_TIME);
    ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  }
  ASSERT_TRUE(rig.eos());
  EXPECT_GT(stat(rig.element, "described"), 0u);
  EXPECT_EQ(stat(rig.element, "windows"),
            stat(rig.element, "passed-over") + stat(rig.element, "described"));
}

TEST(State, stop_while_a_recording_waits_for_the_model) {
  EXPECT_TRUE(stops_promptly(
      "videotestsrc ! video/x-raw,width=32,height=16 ! "
      "vlmdescribe name=describe model=fake:load=100000 interval=100000000 ! fakesink",
      [](GstElement* describe) { return stat(describe, "frames") == 3; }));
}

TEST(State, stop_during_generation) {
  EXPECT_TRUE(
      stops_promptly("videotestsrc ! video/x-raw,width=32,height=16 ! vlmdescribe name=describe "
                     "model=fake:delay=100000 interval=100000000 max-pending=2 ! fakesink",
                     [](GstElement* describe) { return stat(describe, "waiting") == 2; }));
}

TEST(State, stop_while_eos_waits) {
  EXPECT_TRUE(
      stops_promptly("videotestsrc num-buffers=3 ! video/x-raw,width=32,height=16 ! "
                     "vlmdescribe name=describe model=fake:delay=100000 ! fakesink",
                     [](GstElement* describe) { return stat(describe, "waiting") == 1; }));
}

TEST(State, stop_while_exact_video_is_held) {
  EXPECT_TRUE(stops_promptly(
      "videotestsrc ! video/x-raw,width=32,height=16 ! vlmdescribe name=describe "
      "meta-policy=exact max-held-bytes=40000 interval=100000000 model=fake:delay=100000 ! "
      "fakesink",
      [](GstElement* describe) { return stat(describe, "waiting") >= 1; }));
}

TEST(State, flush_releases_video_that_waits) {
  Rig rig("mode=recorded interval=100000000 max-pending=1 model=fake:stateflush");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  close_gate();
  std::atomic<int> flow = GST_FLOW_CUSTOM_SUCCESS;
  std::thread pusher([&] { flow = rig.push_range(40 * GST_MSECOND, 10 * GST_SECOND); });
  ASSERT_TRUE(eventually([&] { return stat(rig.element, "waiting") == 1; }));
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_start()));
  pusher.join();
  EXPECT_EQ(flow, GST_FLOW_FLUSHING);
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_stop(TRUE)));
  open_gate();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  EXPECT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  // What the flush dropped was counted, and is not counted again.
  EXPECT_EQ(time_of(description(found[0].get()), "index"), stat(rig.element, "passed-over"));
  EXPECT_EQ(stat(rig.element, "windows"),
            stat(rig.element, "passed-over") + stat(rig.element, "described"));
}

TEST(State, flush_releases_eos_that_waits) {
  Rig rig("mode=recorded interval=1000000000 model=fake:eosflush");
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  std::thread ender([&] { rig.eos(); });
  ASSERT_TRUE(eventually([&] { return stat(rig.element, "waiting") == 1; }));
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_start()));
  ender.join();
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_stop(TRUE)));
  for (const EventPtr& event : events_of(rig.video)) {
    EXPECT_NE(GST_EVENT_TYPE(event.get()), GST_EVENT_EOS);
  }
}

TEST(State, seek_to_a_playing_file_describes_the_new_place) {
  Pipeline pipeline(
      "videotestsrc num-buffers=500 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe interval=1000000000 ! fakesink");
  ASSERT_EQ(pipeline.set_state(GST_STATE_PAUSED), GST_STATE_CHANGE_ASYNC);
  ASSERT_EQ(gst_element_get_state(pipeline.pipeline, nullptr, nullptr, kPatience),
            GST_STATE_CHANGE_SUCCESS);
  ASSERT_TRUE(gst_element_seek(
      pipeline.pipeline, 1.0, GST_FORMAT_TIME,
      static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE), GST_SEEK_TYPE_SET,
      7 * GST_SECOND, GST_SEEK_TYPE_SET, 9 * GST_SECOND + 500 * GST_MSECOND));
  const std::vector<MessagePtr> found = pipeline.run();
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(time_of(description(found[0].get()), "pts"), 7 * GST_SECOND);
  EXPECT_EQ(time_of(description(found[2].get()), "duration"), 500 * GST_MSECOND);
}

TEST(State, playing_backwards_describes_windows_from_the_end) {
  Pipeline pipeline(
      "videotestsrc num-buffers=500 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe interval=1000000000 ! fakesink");
  pipeline.set_state(GST_STATE_PAUSED);
  ASSERT_EQ(gst_element_get_state(pipeline.pipeline, nullptr, nullptr, kPatience),
            GST_STATE_CHANGE_SUCCESS);
  ASSERT_TRUE(
      gst_element_seek(pipeline.pipeline, -1.0, GST_FORMAT_TIME,
                       static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE),
                       GST_SEEK_TYPE_SET, 0, GST_SEEK_TYPE_SET, 3 * GST_SECOND));
  const std::vector<MessagePtr> found = pipeline.run();
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(time_of(description(found[0].get()), "pts"), 2 * GST_SECOND);
  EXPECT_EQ(time_of(description(found[2].get()), "pts"), 0u);
}

TEST(State, cycles_leave_nothing_behind) {
  Pipeline pipeline(
      "videotestsrc ! video/x-raw,width=32,height=16 ! "
      "vlmdescribe name=describe model=fake:cycle interval=100000000 ! fakesink "
      "describe.text ! fakesink");
  double after_warm_up = 0;
  for (int cycle = 0; cycle < 1000; ++cycle) {
    ASSERT_TRUE(pipeline.play());
    if (cycle % 10 == 0) {
      ASSERT_NE(pipeline.messages.next_description(), nullptr);
    }
    ASSERT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    while (pipeline.messages.next(GST_MESSAGE_ANY, 0) != nullptr) {
    }
    if (cycle == 50) {
      after_warm_up = resident_mib();
    }
  }
  EXPECT_TRUE(eventually([] { return counts().engines == 0; }));
  const double growth = resident_mib() - after_warm_up;
  std::printf("950 cycles grew the process by %.0f KiB\n", growth * 1024);
  EXPECT_LT(growth, 4);
}

TEST(State, elements_share_one_engine) {
  std::string line = "videotestsrc num-buffers=50 ! video/x-raw,width=32,height=16 ! tee name=t ";
  for (int i = 0; i < 8; ++i) {
    line += "t. ! queue ! vlmdescribe model=fake:shared interval=200000000 ! fakesink ";
  }
  {
    Pipeline first(line);
    Pipeline second(line);
    ASSERT_TRUE(second.play());
    EXPECT_EQ(first.run().size(), 8 * 9u);
    EXPECT_EQ(opened("fake:shared"), 1);
  }
  EXPECT_TRUE(eventually([] { return counts().engines == 0; }));
}

TEST(State, one_streams_flush_leaves_others_alone) {
  Rig one("mode=recorded interval=100000000 model=fake:two,delay=20");
  Rig other("mode=recorded interval=100000000 model=fake:two,delay=20 max-pending=64");
  one.begin();
  other.begin();
  ASSERT_EQ(one.push_range(0, 300 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_EQ(other.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(one.push_event(gst_event_new_flush_start()));
  ASSERT_TRUE(other.eos());
  EXPECT_EQ(other.messages->descriptions().size(), 10u);
}

TEST(State, engine_comes_from_a_neighbours_context) {
  Rig one("mode=recorded interval=100000000 model=fake:context");
  const MessagePtr message = one.messages->next(GST_MESSAGE_HAVE_CONTEXT);
  ASSERT_NE(message, nullptr);
  GstContext* context = nullptr;
  gst_message_parse_have_context(message.get(), &context);
  EXPECT_STREQ(gst_context_get_context_type(context), "vlm.engine");
  ElementPtr other(
      GST_ELEMENT(gst_object_ref_sink(gst_element_factory_make("vlmdescribe", nullptr))));
  g_object_set(other.get(), "model", "fake:context", nullptr);
  gst_element_set_context(other.get(), context);
  EXPECT_EQ(gst_element_set_state(other.get(), GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(opened("fake:context"), 1);
  gst_element_set_state(other.get(), GST_STATE_NULL);
  gst_context_unref(context);
}

TEST(State, model_may_change_in_ready) {
  Rig rig("mode=recorded interval=100000000 model=fake:text=before");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(text_of(description(rig.messages->next_description().get())), "before");
  gst_element_set_state(rig.element, GST_STATE_READY);
  rig.set("model=fake:text=after");
  ASSERT_NE(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(text_of(description(rig.messages->next_description().get())), "after");
}

/// Describes one frame and returns the text.
std::string described(Rig& rig) {
  rig.begin();
  EXPECT_EQ(rig.push(0), GST_FLOW_OK);
  EXPECT_TRUE(rig.eos());
  const MessagePtr message = rig.messages->next_description();
  return message == nullptr ? "" : text_of(description(message.get()));
}

TEST(State, model_refused_in_ready_is_refused_each_time) {
  Rig rig("mode=recorded interval=100000000 model=fake:text=before");
  ASSERT_EQ(gst_element_set_state(rig.element, GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  rig.set("model=/nowhere");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
    EXPECT_EQ(rig.messages->next_error(), "/nowhere is no fake model.");
  }
  rig.set("model=fake:text=before");
  ASSERT_NE(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  EXPECT_EQ(described(rig), "before");
}

TEST(State, failed_load_is_tried_again_and_says_why) {
  Rig rig("mode=recorded interval=100000000 model=fake:load=100,fail-load");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.messages->next_error(), "A tensor is missing.");
    gst_element_set_state(rig.element, GST_STATE_READY);
    ASSERT_NE(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  }
}

/// Holds the change of state at `describe` in READY until its load has failed.
struct Holder {
  std::atomic<int> errors = 0;
  static GstBusSyncReply hear(GstBus*, GstMessage* message, gpointer data) {
    auto* self = static_cast<Holder*>(data);
    GstState next = GST_STATE_NULL;
    if (GST_OBJECT_NAME(GST_MESSAGE_SRC(message)) != std::string("describe")) {
      return GST_BUS_PASS;
    }
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
      ++self->errors;
    } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_STATE_CHANGED) {
      gst_message_parse_state_changed(message, nullptr, &next, nullptr);
      if (next == GST_STATE_READY) {
        EXPECT_TRUE(eventually([&] { return self->errors > 0; }));
      }
    }
    return GST_BUS_PASS;
  }
};

// READY is passed on the way, and what was loaded there in vain is not loaded once more.
TEST(State, failed_load_is_said_once_for_each_attempt) {
  Holder holder;
  Pipeline pipeline(
      "videotestsrc num-buffers=3 ! video/x-raw,width=32,height=16 ! "
      "bin.( vlmdescribe name=describe mode=recorded model=fake:once,fail-load ) ! fakesink");
  gst_bus_set_sync_handler(GST_ELEMENT_BUS(pipeline.pipeline), Holder::hear, &holder, nullptr);
  EXPECT_EQ(pipeline.set_state(GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  EXPECT_EQ(holder.errors, 1);
  // An attempt of its own.
  const ElementPtr describe = pipeline["describe"];
  gst_element_set_state(describe.get(), GST_STATE_PAUSED);
  EXPECT_TRUE(eventually([&] { return holder.errors == 2; }));
  EXPECT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  // Where READY was asked for by itself, more is another attempt, too.
  holder.errors = 0;
  EXPECT_EQ(pipeline.set_state(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(holder.errors, 1);
  pipeline.set_state(GST_STATE_PAUSED);
  EXPECT_TRUE(eventually([&] { return holder.errors == 2; }));
}

TEST(State, model_refused_after_a_failed_load_is_refused_each_time) {
  Rig rig("mode=recorded interval=100000000 model=fake:load=100,fail-first,text=now");
  EXPECT_EQ(rig.messages->next_error(), "A tensor is missing.");
  gst_element_set_state(rig.element, GST_STATE_READY);
  rig.set("model=/nowhere");
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
    EXPECT_EQ(rig.messages->next_error(), "/nowhere is no fake model.");
  }
  rig.set("model=fake:load=100,fail-first,text=now");
  ASSERT_NE(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  EXPECT_EQ(described(rig), "now");
}

}  // namespace
}  // namespace element_test
