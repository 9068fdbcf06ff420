// SPDX-License-Identifier: LGPL-2.1-or-later

// The text pad where its branch ends, blocks or begins anew.

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "element_support.h"

namespace element_test {
namespace {

/// A pad that says what it likes to texts, and counts them. Linked to the rig's text pad.
class Branch {
 public:
  explicit Branch(Rig& rig) : rig_(rig) {
    source_ = gst_element_request_pad_simple(rig.element, "text");
    pad_ = gst_pad_new("branch", GST_PAD_SINK);
    gst_object_ref_sink(pad_);
    gst_pad_set_element_private(pad_, this);
    gst_pad_set_chain_function(pad_, chain);
    gst_pad_set_event_function(pad_, event);
    gst_pad_set_active(pad_, TRUE);
    EXPECT_EQ(gst_pad_link(source_, pad_), GST_PAD_LINK_OK);
  }
  ~Branch() {
    gst_pad_set_active(pad_, FALSE);
    gst_element_release_request_pad(rig_.element, source_);
    gst_object_unref(source_);
    gst_object_unref(pad_);
  }
  Branch(const Branch&) = delete;
  Branch& operator=(const Branch&) = delete;

  int count(GstEventType type) const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(std::count_if(
        events_.begin(), events_.end(),
        [type](const EventPtr& known) { return GST_EVENT_TYPE(known.get()) == type; }));
  }
  /// The group of each stream-start.
  std::vector<guint> groups() const {
    const std::lock_guard lock(mutex_);
    std::vector<guint> found;
    for (const EventPtr& known : events_) {
      guint group = 0;
      if (GST_EVENT_TYPE(known.get()) == GST_EVENT_STREAM_START &&
          gst_event_parse_group_id(known.get(), &group)) {
        found.push_back(group);
      }
    }
    return found;
  }
  /// Whether gaps cover [from, to).
  bool silent(GstClockTime from, GstClockTime to) const {
    const std::lock_guard lock(mutex_);
    for (const EventPtr& known : events_) {
      if (GST_EVENT_TYPE(known.get()) == GST_EVENT_GAP) {
        GstClockTime start = 0;
        GstClockTime duration = 0;
        gst_event_parse_gap(known.get(), &start, &duration);
        from = start <= from ? std::max(from, start + duration) : from;
      }
    }
    return from >= to;
  }

  std::atomic<GstFlowReturn> answer = GST_FLOW_OK;
  std::atomic<int> texts = 0;

 private:
  static GstFlowReturn chain(GstPad* pad, GstObject*, GstBuffer* buffer) {
    auto* self = static_cast<Branch*>(gst_pad_get_element_private(pad));
    gst_buffer_unref(buffer);
    ++self->texts;
    return self->answer;
  }
  static gboolean event(GstPad* pad, GstObject*, GstEvent* event) {
    auto* self = static_cast<Branch*>(gst_pad_get_element_private(pad));
    const std::lock_guard lock(self->mutex_);
    self->events_.emplace_back(event);
    return TRUE;
  }

  Rig& rig_;
  GstPad* source_;
  GstPad* pad_;
  mutable std::mutex mutex_;
  std::vector<EventPtr> events_;
};

/// One more stream of `length`, from its start to its end.
void play(Rig& rig, const char* id, guint group, GstClockTime length, bool ends = true) {
  GstEvent* start = gst_event_new_stream_start(id);
  gst_event_set_group_id(start, group);
  ASSERT_TRUE(rig.push_event(start));
  GstCaps* caps = gst_caps_from_string(kFrameCaps);
  ASSERT_TRUE(rig.push_event(gst_event_new_caps(caps)));
  gst_caps_unref(caps);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, length), GST_FLOW_OK);
  if (ends) {
    ASSERT_TRUE(rig.eos());
  }
}

size_t memory_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

class ClosedBranch : public ::testing::TestWithParam<GstFlowReturn> {};

TEST_P(ClosedBranch, keeps_no_texts) {
  const std::string text(256 << 10, 'x');
  Rig rig("mode=recorded interval=0 model=fake:text=" + text);
  Branch branch(rig);
  branch.answer = GetParam();
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  ASSERT_TRUE(eventually([&] { return branch.texts == 1; }));
  ASSERT_NE(rig.messages->next_description(), nullptr);
  size_t before = 0;
  for (guint64 i = 1; i < 160; ++i) {
    ASSERT_EQ(rig.push(i * 40 * GST_MSECOND), GST_FLOW_OK);
    ASSERT_NE(rig.messages->next_description(), nullptr);
    rig.buffers();
    before = i == 64 ? memory_in_use() : before;
  }
  EXPECT_LT(memory_in_use(), before + 8 * text.size());
  EXPECT_EQ(branch.texts, 1);
}

TEST_P(ClosedBranch, opens_for_another_stream) {
  Rig rig("mode=recorded interval=40000000");
  Branch branch(rig);
  branch.answer = GetParam();
  play(rig, "one", 1, 400 * GST_MSECOND, false);
  ASSERT_TRUE(eventually([&] { return branch.texts == 1; }));
  branch.answer = GST_FLOW_OK;
  play(rig, "two", 2, 400 * GST_MSECOND);
  EXPECT_TRUE(eventually([&] { return branch.texts == 11; }));
  EXPECT_TRUE(eventually([&] { return branch.count(GST_EVENT_EOS) == 1; }));
  EXPECT_EQ(branch.groups(), (std::vector<guint>{1, 2}));
}

INSTANTIATE_TEST_SUITE_P(Flows, ClosedBranch, ::testing::Values(GST_FLOW_EOS, GST_FLOW_FLUSHING));

TEST(TextPad, speaks_again_after_eos) {
  Rig rig("mode=recorded interval=200000000");
  Branch branch(rig);
  const char* const ids[] = {"same", "same", "other", "same"};
  for (int i = 0; i < 4; ++i) {
    play(rig, ids[i], static_cast<guint>(i + 1), GST_SECOND);
    EXPECT_TRUE(eventually([&] { return branch.count(GST_EVENT_EOS) == i + 1; }));
    EXPECT_EQ(branch.texts, 5 * (i + 1));
    EXPECT_EQ(branch.count(GST_EVENT_SEGMENT), i + 1);
  }
  EXPECT_EQ(branch.groups(), (std::vector<guint>{1, 2, 3, 4}));
}

TEST(TextPad, hears_of_another_group_without_eos) {
  Rig rig("mode=recorded interval=200000000");
  Branch branch(rig);
  play(rig, "same", 1, GST_SECOND, false);
  play(rig, "same", 2, GST_SECOND);
  EXPECT_TRUE(eventually([&] { return branch.count(GST_EVENT_EOS) == 1; }));
  EXPECT_EQ(branch.texts, 10);
  EXPECT_EQ(branch.groups(), (std::vector<guint>{1, 2}));
}

GstPadProbeReturn note(GstPad*, GstPadProbeInfo*, gpointer reached) {
  *static_cast<std::atomic<bool>*>(reached) = true;
  return GST_PAD_PROBE_OK;
}

// As applications do that link a branch late. What the flush meets on its way has left a mark on
// the pad, what waits behind it has not.
TEST(TextPad, opens_again_where_a_flush_met_the_opening) {
  Rig rig("mode=recorded interval=200000000", true);
  GstPad* pad = gst_element_get_static_pad(rig.element, "text");
  std::atomic<bool> reached = false;
  const gulong probe =
      gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BLOCK_DOWNSTREAM, note, &reached, nullptr);
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  ASSERT_TRUE(eventually([&] { return reached.load(); }));
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_start()));
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_stop(TRUE)));
  gst_pad_remove_probe(pad, probe);
  gst_object_unref(pad);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const BufferPtr text(gst_harness_pull(rig.text));
  ASSERT_NE(text, nullptr);
  std::vector<GstEventType> opening;
  for (const EventPtr& event : events_of(rig.text)) {
    const GstEventType type = GST_EVENT_TYPE(event.get());
    if (type == GST_EVENT_CAPS || type == GST_EVENT_SEGMENT) opening.push_back(type);
  }
  ASSERT_GE(opening.size(), 2u);
  EXPECT_EQ(opening[0], GST_EVENT_CAPS);
  EXPECT_EQ(opening[1], GST_EVENT_SEGMENT);
}

class BlockingBranch : public ::testing::TestWithParam<GstState> {};

// In PAUSED the sink keeps its first text, in PLAYING it waits for the time of it.
TEST_P(BlockingBranch, can_be_cut_off) {
  Rig rig("mode=recorded interval=200000000 max-pending=64");
  const ElementPtr sink(
      GST_ELEMENT(gst_object_ref_sink(gst_element_factory_make("fakesink", nullptr))));
  g_object_set(sink.get(), "sync", TRUE, nullptr);
  GstClock* clock = gst_system_clock_obtain();
  gst_element_set_clock(sink.get(), clock);
  gst_element_set_base_time(sink.get(), gst_clock_get_time(clock));
  gst_object_unref(clock);
  gst_element_set_state(sink.get(), GetParam());
  GstPad* pad = gst_element_request_pad_simple(rig.element, "text");
  std::atomic<bool> gone = false;
  g_object_weak_ref(
      G_OBJECT(pad), [](gpointer flag, GObject*) { *static_cast<std::atomic<bool>*>(flag) = true; },
      &gone);
  GstPad* peer = gst_element_get_static_pad(sink.get(), "sink");
  ASSERT_EQ(gst_pad_link(pad, peer), GST_PAD_LINK_OK);
  std::atomic<int> texts = 0;
  gst_pad_add_probe(
      peer, GST_PAD_PROBE_TYPE_BUFFER,
      [](GstPad*, GstPadProbeInfo*, gpointer count) {
        ++*static_cast<std::atomic<int>*>(count);
        return GST_PAD_PROBE_OK;
      },
      &texts, nullptr);
  rig.begin();
  ASSERT_EQ(rig.push_range(100 * GST_SECOND, 101 * GST_SECOND), GST_FLOW_OK);
  if (GetParam() == GST_STATE_PLAYING) {
    ASSERT_TRUE(eventually([&] { return texts == 1; }));
  } else {
    g_usleep(100000);  // the gap at the segment's start is what prerolls
  }
  const gint64 before = g_get_monotonic_time();
  gst_element_release_request_pad(rig.element, pad);
  EXPECT_FALSE(gst_pad_is_linked(peer));
  // Messages hold the pad, too: from here on nobody does but the element, whose thread still
  // pushes.
  rig.messages->descriptions();
  g_usleep(50000);
  gst_object_unref(pad);
  EXPECT_LT(g_get_monotonic_time() - before, 2 * G_USEC_PER_SEC);
  {
    Branch other(rig);
    ASSERT_EQ(rig.push_range(101 * GST_SECOND, 102 * GST_SECOND), GST_FLOW_OK);
    EXPECT_TRUE(eventually([&] { return other.texts >= 4; }));
    gst_element_set_state(sink.get(), GST_STATE_NULL);
    EXPECT_TRUE(eventually([&] { return rig.messages->descriptions().empty() && gone; }));
    ASSERT_EQ(rig.push_range(102 * GST_SECOND, 103 * GST_SECOND), GST_FLOW_OK);
    EXPECT_TRUE(eventually([&] { return other.texts >= 9; }));
  }
  gst_object_unref(peer);
  EXPECT_LE(texts, 1);
}

INSTANTIATE_TEST_SUITE_P(States, BlockingBranch,
                         ::testing::Values(GST_STATE_PAUSED, GST_STATE_PLAYING));

// Whoever waits for texts need not wait for those that will not come. None of these ends: what is
// said is said in time.
TEST(SilentWindows, are_gaps_while_the_model_is_loaded) {
  Rig rig("mode=live text-timing=window interval=1000000000 model=fake:load=100000");
  Branch branch(rig);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 2040 * GST_MSECOND), GST_FLOW_OK);
  EXPECT_TRUE(eventually([&] { return branch.silent(0, 2 * GST_SECOND); }));
  EXPECT_FALSE(branch.silent(0, 2001 * GST_MSECOND));
}

TEST(SilentWindows, are_gaps_where_a_newer_one_took_their_place) {
  Rig rig("mode=live text-timing=window interval=1000000000 model=fake:replaced");
  Branch branch(rig);
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push_range(0, 4800 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_EQ(stat(rig.element, "passed-over"), 3u);
  open_gate(1);
  EXPECT_TRUE(eventually([&] { return branch.silent(GST_SECOND, 4 * GST_SECOND); }));
  EXPECT_EQ(branch.texts, 1);
  EXPECT_FALSE(branch.silent(0, GST_SECOND));
  open_gate();
  EXPECT_TRUE(eventually([&] { return branch.texts == 2; }));
}

TEST(SilentWindows, are_gaps_where_the_model_fails) {
  Rig rig("mode=recorded interval=1000000000 on-error=skip model=fake:fail-every=1");
  Branch branch(rig);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 2040 * GST_MSECOND), GST_FLOW_OK);
  EXPECT_TRUE(eventually([&] { return branch.silent(0, 2 * GST_SECOND); }));
}

TEST(SilentWindows, are_gaps_where_no_frame_can_be_read) {
  Rig rig("mode=recorded interval=40000000 on-error=skip");
  Branch branch(rig);
  rig.begin();
  for (guint64 i = 0; i < 6; ++i) {
    BufferPtr empty(gst_buffer_new());
    GST_BUFFER_PTS(empty.get()) = i * 40 * GST_MSECOND;
    GST_BUFFER_DURATION(empty.get()) = 40 * GST_MSECOND;
    ASSERT_EQ(gst_harness_push(rig.video, empty.release()), GST_FLOW_OK);
  }
  EXPECT_TRUE(eventually([&] { return branch.silent(0, 200 * GST_MSECOND); }));
  EXPECT_EQ(stat(rig.element, "failed"), 5u);
}

// With interval=0 most frames of a live source are in no window.
TEST(SilentWindows, frames_without_a_window_are_gaps_while_the_model_is_loaded) {
  Rig rig("mode=live text-timing=window interval=0 model=fake:load=100000");
  Branch branch(rig);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  EXPECT_TRUE(eventually([&] { return branch.silent(0, GST_SECOND); }));
}

TEST(SilentWindows, frames_that_the_model_has_no_time_for_are_one_gap_behind_the_text) {
  Rig rig("mode=live text-timing=window interval=0 model=fake:busy-with-one");
  Branch branch(rig);
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "waiting"), 1u);
  open_gate();
  EXPECT_TRUE(eventually([&] { return branch.silent(40 * GST_MSECOND, GST_SECOND); }));
  EXPECT_FALSE(branch.silent(0, 40 * GST_MSECOND));
  EXPECT_EQ(branch.texts, 1);
  EXPECT_EQ(branch.count(GST_EVENT_GAP), 2);  // with the one that lets sinks preroll
}

TEST(SilentWindows, are_gaps_where_nothing_is_shown) {
  Rig rig("mode=live text-timing=window interval=1000000000 model=fake:shows-nothing");
  Branch branch(rig);
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 800 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.push_event(gst_event_new_gap(800 * GST_MSECOND, 100 * GST_MSECOND)));
  EXPECT_FALSE(branch.silent(800 * GST_MSECOND, 900 * GST_MSECOND));  // inside of the window
  ASSERT_TRUE(rig.push_event(gst_event_new_gap(900 * GST_MSECOND, 4 * GST_SECOND)));
  EXPECT_TRUE(eventually([&] { return branch.silent(900 * GST_MSECOND, 4900 * GST_MSECOND); }));
  EXPECT_EQ(branch.texts, 1);
}

}  // namespace
}  // namespace element_test
