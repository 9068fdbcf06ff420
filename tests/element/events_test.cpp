// SPDX-License-Identifier: LGPL-2.1-or-later

// What events and flags do to windows: as the element's documentation has it under "Which frames
// are described".

#include <gst/video/video.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "element_support.h"

namespace element_test {
namespace {

GstSegment time_segment() {
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  return segment;
}

/// One field of all descriptions that have come, in nanoseconds.
std::vector<guint64> field_of_all(const std::vector<MessagePtr>& messages, const char* field) {
  std::vector<guint64> values;
  for (const MessagePtr& message : messages) {
    values.push_back(time_of(description(message.get()), field));
  }
  return values;
}

std::vector<guint64> seconds(std::initializer_list<int> list) {
  std::vector<guint64> values;
  for (const int value : list) {
    values.push_back(static_cast<guint64>(value) * GST_SECOND);
  }
  return values;
}

std::vector<GstEventType> types_of(const std::vector<EventPtr>& events) {
  std::vector<GstEventType> types;
  for (const EventPtr& event : events) {
    types.push_back(GST_EVENT_TYPE(event.get()));
  }
  return types;
}

// A loop: the segment is described to its end before anybody hears that it is done, and the next
// round counts on in running time.
TEST(Events, segment_done_comes_after_all_descriptions_and_a_loop_goes_on) {
  Rig rig("mode=recorded interval=1000000000 model=fake:delay=20", true);
  rig.begin();
  GstSegment segment = time_segment();
  segment.stop = 2500 * GST_MSECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, segment.stop), GST_FLOW_OK);
  ASSERT_TRUE(rig.push_event(
      gst_event_new_segment_done(GST_FORMAT_TIME, static_cast<gint64>(segment.stop))));
  std::vector<MessagePtr> round = rig.messages->descriptions();
  EXPECT_EQ(field_of_all(round, "pts"), seconds({0, 1, 2}));
  EXPECT_EQ(types_of(events_of(rig.video)).back(), GST_EVENT_SEGMENT_DONE);
  segment.base = segment.stop;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  round = rig.messages->descriptions();
  ASSERT_EQ(round.size(), 1u);
  EXPECT_EQ(time_of(description(round[0].get()), "pts"), 0u);
  EXPECT_EQ(time_of(description(round[0].get()), "running-time"), 2500 * GST_MSECOND);
  // Behind the third text of the first round and before the one of the second.
  for (int i = 0; i < 4; ++i) {
    const BufferPtr text(gst_harness_pull(rig.text));
    ASSERT_NE(text, nullptr);
    EXPECT_EQ(GST_BUFFER_PTS(text.get()), static_cast<guint64>(i % 3) * GST_SECOND);
  }
  EXPECT_TRUE(eventually([&] {
    const std::vector<GstEventType> types = types_of(events_of(rig.text));
    return std::count(types.begin(), types.end(), GST_EVENT_SEGMENT_DONE) == 1;
  }));
}

// Another speed without a seek: stream times, and so windows, are what they were.
TEST(Events, instant_rate_change_passes_on_both_pads_and_changes_no_window) {
  Rig rig("mode=recorded interval=1000000000", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 1500 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.push_event(gst_event_new_instant_rate_change(2.0, GST_SEGMENT_FLAG_NONE)));
  ASSERT_EQ(rig.push_range(1500 * GST_MSECOND, 3 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  EXPECT_EQ(field_of_all(found, "pts"), seconds({0, 1, 2}));
  EXPECT_EQ(field_of_all(found, "duration"), seconds({1, 1, 1}));
  const std::vector<GstEventType> passed = types_of(events_of(rig.video));
  // GStreamer 1.22 sends this event more than once.
  EXPECT_GE(std::count(passed.begin(), passed.end(), GST_EVENT_INSTANT_RATE_CHANGE), 1);
  std::vector<GstEventType> texts;
  EXPECT_TRUE(eventually([&] {
    const std::vector<GstEventType> more = types_of(events_of(rig.text));
    texts.insert(texts.end(), more.begin(), more.end());
    return std::count(texts.begin(), texts.end(), GST_EVENT_EOS) == 1;
  }));
  EXPECT_GE(std::count(texts.begin(), texts.end(), GST_EVENT_INSTANT_RATE_CHANGE), 1);
}

TEST(Events, seeks_forth_and_back_start_anew) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 1100 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_NE(rig.messages->next_description(), nullptr);
  guint64 index = 0;
  for (const guint64 start : {10u, 1u, 10u}) {
    ASSERT_TRUE(rig.push_event(gst_event_new_flush_start()));
    ASSERT_TRUE(rig.push_event(gst_event_new_flush_stop(TRUE)));
    GstSegment segment = time_segment();
    segment.start = segment.time = segment.position = start * GST_SECOND;
    ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
    ASSERT_EQ(rig.push_range(segment.start, segment.start + 1100 * GST_MSECOND), GST_FLOW_OK);
    // The first window is over; the second has begun, and the next seek drops it unseen.
    const MessagePtr message = rig.messages->next_description();
    ASSERT_NE(message, nullptr);
    EXPECT_EQ(time_of(description(message.get()), "pts"), segment.start);
    EXPECT_EQ(time_of(description(message.get()), "running-time"), 0u);
    EXPECT_GT(time_of(description(message.get()), "index"), index);
    index = time_of(description(message.get()), "index");
  }
}

class TrickMode : public ::testing::TestWithParam<GstSegmentFlags> {};

// Where frames are left out for speed each one stays until the next.
TEST_P(TrickMode, frames_last_until_the_next) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment = time_segment();
  segment.rate = 4;
  segment.flags = GetParam();
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  for (guint64 i = 0; i <= 2; ++i) {
    ASSERT_EQ(rig.push(i * 2 * GST_SECOND), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  // Nothing says how long the last one would have stayed: it counts in its own window.
  std::vector<guint64> expected = seconds({0, 1, 2, 3, 4});
  if (GetParam() == GST_SEGMENT_FLAG_TRICKMODE_NO_AUDIO) {
    // It leaves out sound, no frames: each is shown for as long as it says.
    expected = seconds({0, 2, 4});
  }
  EXPECT_EQ(field_of_all(rig.messages->descriptions(), "pts"), expected);
}

INSTANTIATE_TEST_SUITE_P(Flags, TrickMode,
                         ::testing::Values(GST_SEGMENT_FLAG_TRICKMODE,
                                           GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS,
                                           GST_SEGMENT_FLAG_TRICKMODE_FORWARD_PREDICTED,
                                           GST_SEGMENT_FLAG_TRICKMODE_NO_AUDIO));

// Rewinding by key frames: windows come from the end, those without a frame are left out.
TEST(Events, key_frames_backwards_are_described_where_they_are) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment = time_segment();
  segment.rate = -8;
  segment.flags = GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS;
  segment.stop = segment.position = 7 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  for (const guint64 second : {6u, 4u, 2u, 0u}) {
    ASSERT_EQ(rig.push(second * GST_SECOND), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  EXPECT_EQ(field_of_all(found, "stream-time"), seconds({6, 4, 2, 0}));
  for (const MessagePtr& message : found) {
    const GstStructure* structure = description(message.get());
    EXPECT_EQ(times_of(structure, "frame-pts")[0], time_of(structure, "stream-time"));
  }
}

// A source that has turned the video round itself: timestamps grow, stream time falls.
TEST(Events, negative_applied_rate_counts_down_in_stream_time) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  GstSegment segment = time_segment();
  segment.applied_rate = -1;
  segment.stop = 3 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, 3 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  EXPECT_EQ(field_of_all(found, "stream-time"), seconds({2, 1, 0}));
  EXPECT_EQ(field_of_all(found, "pts"), seconds({0, 1, 2}));
  EXPECT_EQ(field_of_all(found, "duration"), seconds({1, 1, 1}));
}

// The flag on a buffer with content says that it repeats the one before it: still a picture.
TEST(Events, gap_flag_on_a_picture_changes_nothing) {
  Rig rig("mode=recorded interval=1000000000");
  rig.begin();
  for (guint64 i = 0; i < 50; ++i) {
    BufferPtr buffer = solid_frame(kFrameSize, i * 40 * GST_MSECOND, 40 * GST_MSECOND);
    GST_BUFFER_FLAG_SET(buffer.get(), GST_BUFFER_FLAG_GAP);
    ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
  }
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(field_of_all(rig.messages->descriptions(), "pts"), seconds({0, 1}));
}

TEST(Events, segment_without_times_passes_undescribed) {
  Rig rig("mode=recorded interval=40000000", true);
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_BYTES);
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.buffers().size(), 25u);
  EXPECT_TRUE(rig.messages->descriptions().empty());
}

// Those behind both pads begin and end, and the application hears why nothing is described.
TEST(Events, bytes_from_the_start_end_on_both_pads_with_a_warning) {
  Pipeline pipeline(
      "fakesrc num-buffers=3 format=bytes sizetype=fixed sizemax=128 filltype=zero ! "
      "video/x-raw,format=GRAY8,width=16,height=8,framerate=25/1 ! vlmdescribe name=describe ! "
      "fakesink describe.text ! fakesink");
  EXPECT_TRUE(pipeline.run().empty());
}

TEST(Events, video_without_times_is_warned_of) {
  Rig rig("mode=recorded", true);
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_BYTES);
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  const MessagePtr message = rig.messages->next(GST_MESSAGE_WARNING);
  ASSERT_NE(message, nullptr);
  GError* error = nullptr;
  gst_message_parse_warning(message.get(), &error, nullptr);
  EXPECT_NE(std::string(error->message).find("format=time"), std::string::npos) << error->message;
  g_error_free(error);
}

// A text that comes between a segment and its first frame is timed by the segment.
TEST(Events, texts_by_arrival_keep_to_the_segment_they_come_in) {
  Rig rig("mode=recorded text-timing=arrival interval=1000000000 model=fake:arrivalsegment", true);
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push_range(0, 1040 * GST_MSECOND), GST_FLOW_OK);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.time = 5 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push(2 * GST_SECOND), GST_FLOW_OK);  // before the segment
  open_gate();
  const BufferPtr text(gst_harness_pull(rig.text));
  ASSERT_NE(text, nullptr);
  EXPECT_EQ(GST_BUFFER_PTS(text.get()), 5 * GST_SECOND);
}

/// Size and mean colour of what the next window shows: one frame is pushed for it.
std::string seen_of(Rig& rig, GstClockTime pts, const std::string& meta = "") {
  BufferPtr buffer = solid_frame(kFrameSize, pts, 40 * GST_MSECOND);
  if (meta == "crop") {
    GstVideoCropMeta* crop = gst_buffer_add_video_crop_meta(buffer.get());
    crop->x = 3;
    crop->y = 1;
    crop->width = 10;
    crop->height = 5;
  }
  EXPECT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
  const MessagePtr message = rig.messages->next_description();
  return message == nullptr ? "" : text_of(description(message.get()));
}

bool turn(Rig& rig, const char* orientation) {
  return rig.push_event(
      gst_event_new_tag(gst_tag_list_new(GST_TAG_IMAGE_ORIENTATION, orientation, nullptr)));
}

// As a viewer would: turned as the tags say, cropped, with square pixels.
TEST(Events, tags_metadata_and_pixels_decide_how_the_picture_is_seen) {
  Rig rig("mode=recorded interval=0 prompt=p");
  rig.begin();
  GstClockTime pts = 0;
  const auto seen = [&](const std::string& meta = "") {
    return seen_of(rig, pts += 40 * GST_MSECOND, meta).substr(2, 5);
  };
  EXPECT_EQ(seen(), "16x8|");
  ASSERT_TRUE(turn(rig, "rotate-90"));
  EXPECT_EQ(seen(), "8x16|");
  EXPECT_EQ(seen("crop"), "5x10|");
  ASSERT_TRUE(turn(rig, "flip-rotate-270"));
  EXPECT_EQ(seen(), "8x16|");
  // Tags about something else leave it.
  ASSERT_TRUE(rig.push_event(gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "t", nullptr))));
  EXPECT_EQ(seen(), "8x16|");
  ASSERT_TRUE(turn(rig, "rotate-180"));
  EXPECT_EQ(seen("crop"), "10x5|");
  ASSERT_TRUE(turn(rig, "rotate-90"));
  rig.begin("video/x-raw,format=RGB,width=16,height=8,framerate=25/1,pixel-aspect-ratio=2/1");
  pts = 0;
  // Another stream is not turned.
  EXPECT_EQ(seen(), "32x8|");
  EXPECT_EQ(seen("crop"), "20x5|");
}

// A stream that ends while the model is busy: first the descriptions, then the texts, then the end
// on both pads.
TEST(Events, eos_comes_last_on_both_pads) {
  Rig rig("mode=recorded interval=200000000 max-pending=8 model=fake:delay=20", true);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 5u);
  EXPECT_EQ(types_of(events_of(rig.video)).back(), GST_EVENT_EOS);
  for (int i = 0; i < 5; ++i) {
    ASSERT_NE(BufferPtr(gst_harness_pull(rig.text)), nullptr);
  }
  EXPECT_TRUE(eventually([&] {
    const std::vector<GstEventType> types = types_of(events_of(rig.text));
    return !types.empty() && types.back() == GST_EVENT_EOS;
  }));
  EXPECT_EQ(gst_harness_try_pull(rig.text), nullptr);
}

}  // namespace
}  // namespace element_test
