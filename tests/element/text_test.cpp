// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include <cstring>

#include "element_support.h"

namespace element_test {
namespace {

/// Events of the text pad up to EOS.
std::vector<EventPtr> events_to_eos(GstHarness* harness) {
  std::vector<EventPtr> found;
  EXPECT_TRUE(eventually([&] {
    for (EventPtr& event : events_of(harness)) {
      found.push_back(std::move(event));
    }
    return !found.empty() && GST_EVENT_TYPE(found.back().get()) == GST_EVENT_EOS;
  }));
  return found;
}

TEST(Text, stream_is_announced_before_data) {
  Rig rig("mode=recorded interval=1000000000", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<EventPtr> events = events_to_eos(rig.text);
  ASSERT_GE(events.size(), 5u);
  EXPECT_EQ(GST_EVENT_TYPE(events[0].get()), GST_EVENT_STREAM_START);
  EXPECT_EQ(GST_EVENT_TYPE(events[1].get()), GST_EVENT_CAPS);
  EXPECT_EQ(GST_EVENT_TYPE(events[2].get()), GST_EVENT_SEGMENT);
  EXPECT_EQ(GST_EVENT_TYPE(events[3].get()), GST_EVENT_TAG);
  GstStreamFlags flags = GST_STREAM_FLAG_NONE;
  gst_event_parse_stream_flags(events[0].get(), &flags);
  EXPECT_TRUE(flags & GST_STREAM_FLAG_SPARSE);
  GstPad* src = gst_element_get_static_pad(rig.element, "src");
  GstPad* pad = gst_element_get_static_pad(rig.element, "text");
  gchar* video_id = gst_pad_get_stream_id(src);
  gchar* text_id = gst_pad_get_stream_id(pad);
  EXPECT_STRNE(video_id, text_id);
  g_free(video_id);
  g_free(text_id);
  gst_object_unref(src);
  gst_object_unref(pad);
}

TEST(Text, window_timing_is_that_of_the_video) {
  Rig rig("mode=recorded interval=1000000000 model=fake:delay=20", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 2400 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const guint64 ends[] = {GST_SECOND, 2 * GST_SECOND, 2400 * GST_MSECOND};
  for (guint64 i = 0; i < 3; ++i) {
    const BufferPtr buffer(gst_harness_pull(rig.text));
    ASSERT_NE(buffer, nullptr);
    EXPECT_EQ(GST_BUFFER_PTS(buffer.get()), i * GST_SECOND);
    EXPECT_EQ(GST_BUFFER_DURATION(buffer.get()), ends[i] - i * GST_SECOND);
    EXPECT_EQ(content(buffer.get()), "Describe the scene.|16x8|64,64,64|1");
    EXPECT_EQ(time_of(meta_of(buffer.get()), "index"), i);
  }
  events_to_eos(rig.text);
}

TEST(Text, arrival_timing_is_that_of_the_newest_video) {
  Rig rig("mode=recorded text-timing=arrival interval=1000000000 model=fake:arrival", true);
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  close_gate();
  ASSERT_EQ(rig.push_range(40 * GST_MSECOND, 1720 * GST_MSECOND), GST_FLOW_OK);
  open_gate();
  const BufferPtr buffer(gst_harness_pull(rig.text));
  ASSERT_NE(buffer, nullptr);
  EXPECT_EQ(GST_BUFFER_PTS(buffer.get()), 1680 * GST_MSECOND);
  EXPECT_EQ(time_of(meta_of(buffer.get()), "pts"), 0u);
  EXPECT_EQ(time_of(meta_of(buffer.get()), "duration"), GST_SECOND);
}

TEST(Text, arrival_timing_declares_every_silent_frame) {
  Rig rig("mode=live interval=1000000000 model=fake:load=100000", true);
  rig.begin();
  guint64 until = 0;
  ASSERT_EQ(rig.push_range(0, 2 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  for (const EventPtr& event : events_to_eos(rig.text)) {
    if (GST_EVENT_TYPE(event.get()) == GST_EVENT_GAP) {
      GstClockTime start = 0;
      GstClockTime duration = 0;
      gst_event_parse_gap(event.get(), &start, &duration);
      EXPECT_EQ(start, until);
      until = start + duration;
    }
  }
  EXPECT_EQ(until, 2 * GST_SECOND);
}

TEST(Text, windows_left_out_are_gaps) {
  Rig rig("mode=recorded interval=1000000000 on-error=skip model=fake:fail-every=2", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 3 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  bool found = false;
  for (const EventPtr& event : events_to_eos(rig.text)) {
    if (GST_EVENT_TYPE(event.get()) == GST_EVENT_GAP) {
      GstClockTime start = 0;
      GstClockTime duration = 0;
      gst_event_parse_gap(event.get(), &start, &duration);
      found = found || (start == GST_SECOND && duration == GST_SECOND);
    }
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(gst_harness_buffers_received(rig.text), 2u);
}

TEST(Text, line_breaks_and_arrows_are_made_harmless) {
  Rig rig("mode=recorded interval=1000000000 model=fake:text=one~~two-->three", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const BufferPtr buffer(gst_harness_pull(rig.text));
  const std::string text = content(buffer.get());
  EXPECT_EQ(text, "one two--&gt;three");
  EXPECT_EQ(text_of(meta_of(buffer.get())), "one\n\ntwo-->three");
}

TEST(Text, empty_text_is_a_gap) {
  Rig rig("mode=recorded interval=1000000000 model=fake:text=", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  events_to_eos(rig.text);
  EXPECT_EQ(gst_harness_buffers_received(rig.text), 0u);
  EXPECT_EQ(rig.messages->descriptions().size(), 1u);
}

TEST(Text, segment_waits_behind_pending_texts) {
  Rig rig("mode=recorded interval=10000000000 model=fake:delay=50", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.base = GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<EventPtr> events = events_to_eos(rig.text);
  int segments = 0;
  for (const EventPtr& event : events) {
    segments += GST_EVENT_TYPE(event.get()) == GST_EVENT_SEGMENT ? 1 : 0;
  }
  EXPECT_EQ(segments, 2);
  for (guint64 i = 0; i < 2; ++i) {
    const BufferPtr buffer(gst_harness_pull(rig.text));
    EXPECT_EQ(GST_BUFFER_PTS(buffer.get()), 0u);
    EXPECT_EQ(time_of(meta_of(buffer.get()), "running-time"), i * GST_SECOND);
  }
}

TEST(Text, counts_in_stream_time_whatever_the_buffers_say) {
  for (const char* timing : {"window", "arrival"}) {
    SCOPED_TRACE(timing);
    Rig rig(std::string("mode=recorded interval=1000000000 text-timing=") + timing, true);
    rig.begin();
    GstSegment segment;
    gst_segment_init(&segment, GST_FORMAT_TIME);
    segment.start = 100 * GST_SECOND;
    segment.time = 10 * GST_SECOND;
    segment.base = 3 * GST_SECOND;
    segment.applied_rate = 2;
    ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
    // Two seconds of stream time in one of buffers.
    ASSERT_EQ(rig.push_range(100 * GST_SECOND, 101 * GST_SECOND), GST_FLOW_OK);
    ASSERT_TRUE(rig.push_event(gst_event_new_gap(101 * GST_SECOND, GST_SECOND)));
    ASSERT_TRUE(rig.eos());
    const GstSegment* text = nullptr;
    GstClockTime silent_until = 0;
    const std::vector<EventPtr> events = events_to_eos(rig.text);
    for (const EventPtr& event : events) {
      if (GST_EVENT_TYPE(event.get()) == GST_EVENT_SEGMENT) {
        gst_event_parse_segment(event.get(), &text);
      } else if (GST_EVENT_TYPE(event.get()) == GST_EVENT_GAP) {
        GstClockTime start = 0;
        GstClockTime duration = 0;
        gst_event_parse_gap(event.get(), &start, &duration);
        silent_until = start + duration;
      }
    }
    ASSERT_NE(text, nullptr);
    EXPECT_EQ(silent_until, 14 * GST_SECOND);
    for (guint64 i = 0; i < 2; ++i) {
      const BufferPtr buffer(gst_harness_pull(rig.text));
      ASSERT_NE(buffer, nullptr);
      const GstClockTime pts = GST_BUFFER_PTS(buffer.get());
      if (*timing == 'w') {
        EXPECT_EQ(pts, (10 + i) * GST_SECOND);
      } else {
        EXPECT_GE(pts, (10 + i) * GST_SECOND + 480 * GST_MSECOND);
        EXPECT_LE(pts, 12 * GST_SECOND);
      }
      EXPECT_EQ(GST_BUFFER_DURATION(buffer.get()), GST_SECOND);
      EXPECT_EQ(gst_segment_to_stream_time(text, GST_FORMAT_TIME, pts), pts);
      EXPECT_EQ(gst_segment_to_running_time(text, GST_FORMAT_TIME, pts),
                3 * GST_SECOND + (pts - 10 * GST_SECOND) / 2);
      // What is in the structure are the video's own times.
      const GstStructure* structure = meta_of(buffer.get());
      EXPECT_EQ(time_of(structure, "pts"), 100 * GST_SECOND + i * 500 * GST_MSECOND);
      EXPECT_EQ(time_of(structure, "duration"), 500 * GST_MSECOND);
      EXPECT_EQ(time_of(structure, "stream-time"), (10 + i) * GST_SECOND);
    }
  }
}

TEST(Text, unlinked_pad_stops_nothing) {
  Pipeline pipeline(
      "videotestsrc num-buffers=100 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe name=describe interval=1000000000 ! fakesink");
  const ElementPtr describe = pipeline["describe"];
  GstPad* pad = gst_element_request_pad_simple(describe.get(), "text");
  ASSERT_NE(pad, nullptr);
  EXPECT_EQ(pipeline.run().size(), 4u);
  gst_element_release_request_pad(describe.get(), pad);
  gst_object_unref(pad);
}

TEST(Text, video_pad_need_not_be_linked) {
  Pipeline pipeline(
      "videotestsrc num-buffers=100 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe name=describe interval=1000000000 describe.text ! fakesink");
  EXPECT_EQ(pipeline.run().size(), 4u);
}

TEST(Text, pad_may_come_and_go_while_playing) {
  Rig rig("mode=recorded interval=100000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  for (guint64 round = 1; round <= 3; ++round) {
    GstHarness* text = gst_harness_new_with_element(rig.element, nullptr, "text");
    ASSERT_EQ(rig.push_range(round * 200 * GST_MSECOND, (round + 1) * 200 * GST_MSECOND),
              GST_FLOW_OK);
    const BufferPtr buffer(gst_harness_pull(text));
    ASSERT_NE(buffer, nullptr);
    const std::vector<EventPtr> events = events_of(text);
    ASSERT_GE(events.size(), 3u);
    EXPECT_EQ(GST_EVENT_TYPE(events[0].get()), GST_EVENT_STREAM_START);
    EXPECT_EQ(GST_EVENT_TYPE(events[2].get()), GST_EVENT_SEGMENT);
    gst_harness_teardown(text);
    GstPad* left = gst_element_get_static_pad(rig.element, "text");
    EXPECT_EQ(left, nullptr);
  }
  ASSERT_EQ(rig.push_range(800 * GST_MSECOND, GST_SECOND), GST_FLOW_OK);
  EXPECT_TRUE(rig.eos());
}

TEST(Text, flush_drops_texts_and_starts_again) {
  Rig rig("mode=recorded interval=1000000000 model=fake:flush", true);
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  ASSERT_EQ(rig.push(600 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(eventually([&] { return stat(rig.element, "waiting") == 1; }));
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_start()));
  ASSERT_TRUE(rig.push_event(gst_event_new_flush_stop(TRUE)));
  open_gate();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.time = segment.position = 5 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(5 * GST_SECOND, 6 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const BufferPtr buffer(gst_harness_pull(rig.text));
  ASSERT_NE(buffer, nullptr);
  EXPECT_EQ(GST_BUFFER_PTS(buffer.get()), 5 * GST_SECOND);
  EXPECT_EQ(time_of(meta_of(buffer.get()), "index"), 1u);
  EXPECT_EQ(gst_harness_buffers_received(rig.text), 1u);
}

// However soon it is there: the model may be faster than the frame is on its way through.
TEST(Text, timed_by_arrival_is_never_before_its_frame) {
  Rig rig("mode=live interval=0 text-timing=arrival", true);
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  rig.begin();
  for (guint64 i = 0; i < 500; ++i) {
    ASSERT_EQ(rig.push(i * 40 * GST_MSECOND), GST_FLOW_OK);
    const BufferPtr buffer(gst_harness_pull(rig.text));
    ASSERT_NE(buffer, nullptr);
    EXPECT_GE(GST_BUFFER_PTS(buffer.get()), times_of(meta_of(buffer.get()), "frame-pts").front());
    ASSERT_NE(rig.messages->next_description(), nullptr);
  }
}

}  // namespace
}  // namespace element_test
