// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "element_support.h"

namespace element_test {
namespace {

struct Mix {
  int buffers, rate_n, rate_d;
  guint64 interval_ms;
  int frames;
};

class RecordedMix : public ::testing::TestWithParam<Mix> {};

// Every window of the stream is described once, in order, the last partial one too.
TEST_P(RecordedMix, describes_every_window) {
  const Mix mix = GetParam();
  Pipeline pipeline("videotestsrc num-buffers=" + std::to_string(mix.buffers) +
                    " ! video/x-raw,width=32,height=16,framerate=" + std::to_string(mix.rate_n) +
                    "/" + std::to_string(mix.rate_d) +
                    " ! vlmdescribe interval=" + std::to_string(mix.interval_ms * GST_MSECOND) +
                    " frames=" + std::to_string(mix.frames) + " ! fakesink");
  const std::vector<MessagePtr> found = pipeline.run();
  const guint64 interval = mix.interval_ms * GST_MSECOND;
  guint64 expected = 0;
  guint64 window = GST_CLOCK_TIME_NONE;
  for (int i = 0; i < mix.buffers; ++i) {
    const guint64 pts = gst_util_uint64_scale(static_cast<guint64>(i),
                                              static_cast<guint64>(mix.rate_d) * GST_SECOND,
                                              static_cast<guint64>(mix.rate_n));
    // Frames longer than a window are described in each window they are shown in.
    const guint64 frame = gst_util_uint64_scale(GST_SECOND, static_cast<guint64>(mix.rate_d),
                                                static_cast<guint64>(mix.rate_n));
    const guint64 first = pts / interval;
    const bool last = i + 1 == mix.buffers;
    guint64 reach = first;
    for (guint64 k = first + 1; k * interval + interval / (2 * mix.frames) < pts + frame; ++k) {
      reach = last || (k + 1) * interval <= pts + frame ? k : reach;
    }
    for (guint64 k = first; k <= reach; ++k) {
      if (window == GST_CLOCK_TIME_NONE || k > window) {
        window = k;
        ++expected;
      }
    }
  }
  ASSERT_EQ(found.size(), expected);
  guint64 end = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const GstStructure* structure = description(found[i].get());
    EXPECT_EQ(time_of(structure, "index"), i);
    EXPECT_EQ(time_of(structure, "pts"), end);
    EXPECT_EQ(times_of(structure, "frame-pts").size(), static_cast<size_t>(mix.frames));
    end = time_of(structure, "pts") + time_of(structure, "duration");
  }
}

INSTANTIATE_TEST_SUITE_P(Rates, RecordedMix,
                         ::testing::Values(Mix{1, 25, 1, 2000, 1}, Mix{50, 25, 1, 2000, 1},
                                           Mix{51, 25, 1, 2000, 1}, Mix{49, 25, 1, 2000, 4},
                                           Mix{130, 30, 1, 1000, 1}, Mix{90, 30000, 1001, 1000, 3},
                                           Mix{60, 60, 1, 100, 2}, Mix{10, 1, 1, 400, 1},
                                           Mix{7, 1, 3, 2000, 2}, Mix{40, 25, 1, 40, 1},
                                           Mix{40, 25, 1, 33, 1}));

TEST(Recorded, frame_is_described_in_each_millisecond_of_the_shortest_interval) {
  Rig rig("mode=recorded interval=1");
  rig.begin();
  ASSERT_EQ(rig.push(0, 4 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_EQ(rig.push(4 * GST_MSECOND, 2 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 6u);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(time_of(description(found[i].get()), "pts"), i * GST_MSECOND);
    EXPECT_EQ(time_of(description(found[i].get()), "duration"), GST_MSECOND);
  }
}

TEST(Recorded, every_frame_is_described_without_interval) {
  Pipeline pipeline(
      "videotestsrc num-buffers=30 ! video/x-raw,width=32,height=16 ! vlmdescribe interval=0 ! "
      "fakesink");
  EXPECT_EQ(pipeline.run().size(), 30u);
}

TEST(Recorded, slow_model_loses_nothing) {
  Pipeline pipeline(
      "videotestsrc num-buffers=100 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe name=describe model=fake:delay=30 interval=200000000 max-pending=1 ! fakesink");
  EXPECT_EQ(pipeline.run().size(), 20u);
  const ElementPtr describe = pipeline["describe"];
  EXPECT_EQ(stat(describe.get(), "described"), 20u);
  EXPECT_EQ(stat(describe.get(), "passed-over"), 0u);
  EXPECT_EQ(stat(describe.get(), "windows"), 20u);
  EXPECT_EQ(stat(describe.get(), "waiting"), 0u);
}

TEST(Recorded, video_waits_at_max_pending) {
  Rig rig("mode=recorded interval=1000000000 max-pending=2 model=fake:backpressure");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  close_gate();
  std::atomic<bool> done = false;
  std::thread pusher([&] {
    EXPECT_EQ(rig.push_range(40 * GST_MSECOND, 6 * GST_SECOND), GST_FLOW_OK);
    done = true;
  });
  // Frames up to the third window's middle have come in, and that one waits for room.
  EXPECT_TRUE(eventually([&] { return stat(rig.element, "frames") == 64; }));
  EXPECT_EQ(stat(rig.element, "waiting"), 2u);
  EXPECT_FALSE(done);
  open_gate();
  pusher.join();
  EXPECT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 6u);
}

TEST(Recorded, video_waits_for_the_model) {
  Pipeline pipeline(
      "videotestsrc num-buffers=10 ! video/x-raw,width=32,height=16 ! "
      "vlmdescribe model=fake:load=200 interval=100000000 ! fakesink");
  EXPECT_EQ(pipeline.run().size(), 4u);
}

TEST(Recorded, eos_waits_for_all) {
  Rig rig("mode=recorded interval=1000000000 model=fake:delay=50");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 2500 * GST_MSECOND), GST_FLOW_OK);
  EXPECT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 3u);
  const GstStructure* last = description(found.back().get());
  EXPECT_EQ(time_of(last, "pts"), 2 * GST_SECOND);
  EXPECT_EQ(time_of(last, "duration"), 520 * GST_MSECOND);
}

TEST(Recorded, windows_go_by_stream_time) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = 100 * GST_SECOND;
  segment.time = 10 * GST_SECOND + 500 * GST_MSECOND;
  segment.base = 3 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(100 * GST_SECOND, 102 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 3u);
  const GstStructure* second = description(found[1].get());
  EXPECT_EQ(time_of(second, "stream-time"), 11 * GST_SECOND);
  EXPECT_EQ(time_of(second, "pts"), 100 * GST_SECOND + 500 * GST_MSECOND);
  EXPECT_EQ(time_of(second, "running-time"), 3 * GST_SECOND + 500 * GST_MSECOND);
  EXPECT_EQ(time_of(description(found[2].get()), "duration"), 500 * GST_MSECOND);
}

TEST(Recorded, windows_are_clipped_to_the_segment) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.time = 300 * GST_MSECOND;
  segment.stop = 1700 * GST_MSECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, 3 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(time_of(description(found[0].get()), "pts"), 300 * GST_MSECOND);
  EXPECT_EQ(time_of(description(found[0].get()), "duration"), 700 * GST_MSECOND);
  EXPECT_EQ(time_of(description(found[1].get()), "duration"), 700 * GST_MSECOND);
}

TEST(Recorded, buffers_without_timestamps_follow_each_other) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(rig.push(GST_CLOCK_TIME_NONE, GST_CLOCK_TIME_NONE), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 2u);
}

TEST(Recorded, backwards_buffers_without_timestamps_begin_at_the_stop) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.rate = -1;
  segment.stop = segment.position = 2 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(rig.push(GST_CLOCK_TIME_NONE), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(time_of(description(found[0].get()), "pts"), GST_SECOND);
  EXPECT_EQ(time_of(description(found[1].get()), "pts"), 0u);
  EXPECT_EQ(times_of(description(found[1].get()), "frame-pts")[0], 480 * GST_MSECOND);
}

TEST(Recorded, frames_of_trick_modes_last_until_the_next) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.rate = 8;
  segment.flags = GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  for (guint64 i = 0; i <= 3; ++i) {
    ASSERT_EQ(rig.push(i * 2 * GST_SECOND), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  guint64 end = 0;
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  for (const MessagePtr& message : found) {
    const GstStructure* structure = description(message.get());
    EXPECT_EQ(time_of(structure, "pts"), end);
    EXPECT_EQ(times_of(structure, "frame-pts")[0], end / (2 * GST_SECOND) * 2 * GST_SECOND);
    end += time_of(structure, "duration");
  }
  // Nothing says how long the last one would have stayed.
  EXPECT_EQ(end, 7 * GST_SECOND);
}

TEST(Recorded, nothing_is_described_where_nothing_is_shown) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.push_event(gst_event_new_gap(GST_SECOND, 2 * GST_SECOND)));
  ASSERT_EQ(rig.push_range(3 * GST_SECOND, 4 * GST_SECOND), GST_FLOW_OK);
  BufferPtr silent(gst_buffer_new());
  GST_BUFFER_PTS(silent.get()) = 4 * GST_SECOND;
  GST_BUFFER_DURATION(silent.get()) = 2 * GST_SECOND;
  GST_BUFFER_FLAG_SET(silent.get(), GST_BUFFER_FLAG_GAP);
  ASSERT_EQ(gst_harness_push(rig.video, silent.release()), GST_FLOW_OK);
  // A hole in the timestamps.
  ASSERT_EQ(rig.push_range(8 * GST_SECOND, 9 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  std::vector<guint64> starts;
  for (const MessagePtr& message : rig.messages->descriptions()) {
    starts.push_back(time_of(description(message.get()), "pts") / GST_SECOND);
    EXPECT_EQ(time_of(description(message.get()), "duration"), GST_SECOND);
  }
  EXPECT_EQ(starts, (std::vector<guint64>{0, 3, 8}));
}

// As decoders let them, for video that lags behind its sound; times rounded to milliseconds, as
// Matroska has them.
TEST(Recorded, gaps_that_overtake_pictures_take_nothing_from_them) {
  Rig rig("mode=recorded interval=10000000000");
  rig.begin();
  for (guint64 i = 0; i < 12; ++i) {
    const guint64 at = i * 10 * GST_SECOND / 3 / GST_MSECOND * GST_MSECOND;
    ASSERT_EQ(rig.push(at, 10 * GST_SECOND / 3), GST_FLOW_OK);
    ASSERT_TRUE(rig.push_event(gst_event_new_gap(at + 7 * GST_SECOND, 3 * GST_SECOND)));
  }
  ASSERT_TRUE(rig.eos());
  std::vector<std::pair<guint64, guint64>> windows;
  for (const MessagePtr& message : rig.messages->descriptions()) {
    const GstStructure* structure = description(message.get());
    windows.emplace_back(time_of(structure, "pts") / GST_SECOND,
                         time_of(structure, "duration") / GST_SECOND);
  }
  EXPECT_EQ(windows,
            (std::vector<std::pair<guint64, guint64>>{{0, 10}, {10, 10}, {20, 10}, {30, 9}}));
}

TEST(Recorded, discont_alone_changes_nothing) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  for (guint64 i = 0; i < 50; ++i) {
    BufferPtr buffer = solid_frame(384, i * 40 * GST_MSECOND, 40 * GST_MSECOND);
    GST_BUFFER_FLAG_SET(buffer.get(), GST_BUFFER_FLAG_DISCONT | GST_BUFFER_FLAG_RESYNC);
    ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 2u);
}

TEST(Recorded, stream_start_ends_a_window_and_a_prolonged_segment_does_not) {
  Rig rig("mode=recorded interval=10000000000");
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.stop = GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  segment.stop = 2 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(GST_SECOND, 2 * GST_SECOND), GST_FLOW_OK);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(time_of(description(found[0].get()), "duration"), 2 * GST_SECOND);
  EXPECT_EQ(time_of(description(found[1].get()), "duration"), GST_SECOND);
}

// Whatever the spacing of frames, the one at the middle of each second is taken.
TEST(Recorded, frame_rate_may_vary) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  std::vector<guint64> expected;
  guint64 pts = 0;
  for (guint64 i = 0; pts < 12 * GST_SECOND; ++i) {
    const guint64 duration = (7 + i * i * 31 % 190) * GST_MSECOND;
    ASSERT_EQ(rig.push(pts, duration), GST_FLOW_OK);
    if (pts >= expected.size() * GST_SECOND + GST_SECOND / 2) {
      expected.push_back(pts);
    }
    pts += duration;
  }
  ASSERT_TRUE(rig.eos());
  std::vector<guint64> taken;
  for (const MessagePtr& message : rig.messages->descriptions()) {
    taken.push_back(times_of(description(message.get()), "frame-pts")[0]);
  }
  ASSERT_GE(taken.size(), expected.size());
  taken.resize(expected.size());
  EXPECT_EQ(taken, expected);
}

TEST(Recorded, new_segment_ends_a_window) {
  Rig rig("mode=recorded interval=10000000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.base = GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(time_of(description(found[1].get()), "pts"), 0u);
  EXPECT_EQ(time_of(description(found[1].get()), "running-time"), GST_SECOND);
  EXPECT_EQ(time_of(description(found[1].get()), "index"), 1u);
}

TEST(Recorded, caps_may_change_inside_a_window) {
  Rig rig("mode=recorded interval=1000000000 frames=2");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 400 * GST_MSECOND), GST_FLOW_OK);
  GstCaps* grey =
      gst_caps_from_string("video/x-raw,format=GRAY8,width=24,height=16,framerate=25/1");
  ASSERT_TRUE(rig.push_event(gst_event_new_caps(grey)));
  gst_caps_unref(grey);
  for (int i = 10; i < 25; ++i) {
    ASSERT_EQ(
        gst_harness_push(rig.video, solid_frame(24 * 16, static_cast<guint64>(i) * 40 * GST_MSECOND,
                                                40 * GST_MSECOND)
                                        .release()),
        GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  const MessagePtr message = rig.messages->next_description();
  EXPECT_EQ(text_of(description(message.get())), "Describe the scene.|16x8|64,64,64|2");
}

TEST(Recorded, inactive_stretches_are_left_out) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  rig.set("active=false");
  ASSERT_EQ(rig.push_range(GST_SECOND, 3 * GST_SECOND), GST_FLOW_OK);
  rig.set("active=true");
  ASSERT_EQ(rig.push_range(3 * GST_SECOND, 4 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(time_of(description(found[1].get()), "pts"), 3 * GST_SECOND);
  EXPECT_EQ(rig.buffers().size(), 100u);
}

TEST(Recorded, exact_meta_covers_each_buffer) {
  Rig rig("mode=recorded interval=1000000000 meta-policy=exact model=fake:delay=5");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 3300 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<BufferPtr> buffers = rig.buffers();
  ASSERT_EQ(buffers.size(), 83u);
  for (const BufferPtr& buffer : buffers) {
    const GstStructure* structure = meta_of(buffer.get());
    ASSERT_NE(structure, nullptr) << GST_BUFFER_PTS(buffer.get());
    EXPECT_LE(time_of(structure, "pts"), GST_BUFFER_PTS(buffer.get()));
    EXPECT_LT(GST_BUFFER_PTS(buffer.get()),
              time_of(structure, "pts") + time_of(structure, "duration"));
  }
}

TEST(Recorded, exact_keeps_events_in_their_place) {
  Rig rig("mode=recorded interval=1000000000 meta-policy=exact");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  rig.push_event(
      gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, gst_structure_new_empty("mark")));
  EXPECT_EQ(gst_harness_buffers_received(rig.video), 0u);
  for (const EventPtr& event : events_of(rig.video)) {
    EXPECT_NE(GST_EVENT_TYPE(event.get()), GST_EVENT_CUSTOM_DOWNSTREAM);
  }
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.buffers().size(), 5u);
  const std::vector<EventPtr> events = events_of(rig.video);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(GST_EVENT_TYPE(events[0].get()), GST_EVENT_CUSTOM_DOWNSTREAM);
  EXPECT_EQ(GST_EVENT_TYPE(events[1].get()), GST_EVENT_EOS);
}

TEST(Recorded, exact_is_bounded) {
  Rig rig("mode=recorded interval=1000000000 meta-policy=exact max-held-bytes=2000");
  rig.begin();
  EXPECT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_ERROR);
  EXPECT_NE(rig.messages->next_error().find("max-held-bytes"), std::string::npos);
}

/// Buffers that the allocation query asks of a pool, for a neighbour that wants `minimum` itself.
guint asked_of(Rig& rig, guint minimum, guint maximum) {
  GstCaps* caps = gst_caps_from_string(kFrameCaps);
  GstQuery* query = gst_query_new_allocation(caps, TRUE);
  gst_caps_unref(caps);
  // The harness answers with the query as it is: what is in it is what the neighbour says.
  if (minimum > 0) {
    gst_query_add_allocation_pool(query, nullptr, kFrameSize, minimum, maximum);
  }
  EXPECT_TRUE(gst_pad_peer_query(rig.video->srcpad, query));
  EXPECT_EQ(gst_query_get_n_allocation_pools(query), 1u);
  guint most = 0;
  gst_query_parse_nth_allocation_pool(query, 0, nullptr, nullptr, &minimum, &most);
  EXPECT_EQ(most, maximum == 0 ? 0 : minimum + maximum - 2);
  gst_query_unref(query);
  return minimum;
}

// 25 frames a second: two windows of a second and what is on the way between them.
TEST(Recorded, exact_asks_for_the_buffers_that_it_holds) {
  Rig rig("mode=recorded interval=1000000000 meta-policy=exact");
  rig.begin();
  EXPECT_EQ(asked_of(rig, 2, 0), 2u + 52);
  EXPECT_EQ(asked_of(rig, 2, 3), 2u + 52);
  EXPECT_EQ(asked_of(rig, 0, 0), 52u);
  rig.set("max-held-bytes=3840");
  EXPECT_EQ(asked_of(rig, 2, 0), 2u + 10);
}

// With the buffers that it asked for nothing is copied; with fewer some are, and the pool never
// runs dry.
TEST(Recorded, exact_holds_what_the_pool_has_and_copies_of_the_rest) {
  for (const bool granted : {true, false}) {
    Rig rig("mode=recorded interval=1000000000 meta-policy=exact model=fake:held");
    rig.begin();
    const guint asked = asked_of(rig, 2, 2);
    const guint buffers = granted ? asked : 3;
    const auto pool = frame_pool(buffers, buffers);
    close_gate();
    std::vector<GstMemory*> sent;
    for (guint64 i = 0; i < 30; ++i) {
      BufferPtr buffer = pooled_frame(pool.get(), i * 40 * GST_MSECOND);
      ASSERT_NE(buffer, nullptr) << i;
      sent.push_back(gst_buffer_peek_memory(buffer.get(), 0));
      ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
    }
    EXPECT_EQ(gst_harness_buffers_received(rig.video), 0u);
    open_gate();
    ASSERT_TRUE(rig.eos());
    const std::vector<BufferPtr> received = rig.buffers();
    ASSERT_EQ(received.size(), sent.size());
    for (size_t i = 0; i < sent.size(); ++i) {
      EXPECT_EQ(gst_buffer_peek_memory(received[i].get(), 0) == sent[i], granted) << i;
      EXPECT_NE(meta_of(received[i].get()), nullptr) << i;
    }
  }
}

TEST(Recorded, exact_is_refused_for_live_video) {
  Rig rig("mode=live meta-policy=exact");
  rig.begin();
  EXPECT_EQ(rig.push(0), GST_FLOW_ERROR);
  EXPECT_NE(rig.messages->next_error().find("meta-policy"), std::string::npos);
}

}  // namespace
}  // namespace element_test
