// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmsegment.h"

#include <gtest/gtest.h>

#include <random>

namespace gstvlm {
namespace {

struct Case {
  const char* name;
  double rate, applied_rate;
  uint64_t start, stop, time, base, offset;
};

std::ostream& operator<<(std::ostream& stream, const Case& one) {
  return stream << one.name;
}

GstSegment segment_of(const Case& one) {
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.rate = one.rate;
  segment.applied_rate = one.applied_rate;
  segment.start = one.start;
  segment.stop = one.stop;
  segment.time = one.time;
  segment.base = one.base;
  segment.offset = one.offset;
  segment.position = one.rate > 0 ? one.start : one.stop;
  return segment;
}

uint64_t distance(uint64_t a, uint64_t b) {
  return a > b ? a - b : b - a;
}

class Segment : public ::testing::TestWithParam<Case> {};

// GStreamer's own arithmetic is the judge: what it makes of the video's position and of the text's
// at the same stream time.
TEST_P(Segment, keeps_running_times_and_counts_in_stream_time) {
  const GstSegment video = segment_of(GetParam());
  const GstSegment text = text_segment(video);
  const bool exact = video.rate * video.rate == 1 && video.applied_rate == 1;
  // Rates scale what was rounded to nanoseconds.
  const uint64_t tolerance = exact ? 0 : 4;
  const uint64_t length =
      GST_CLOCK_TIME_IS_VALID(video.stop) ? video.stop - video.start : 100 * GST_SECOND;
  std::mt19937_64 random(11);
  for (int i = 0; i < 200; ++i) {
    const uint64_t position =
        video.start + (i == 0 ? 0 : (i == 1 ? length : random() % (length + 1)));
    const uint64_t stream = gst_segment_to_stream_time(&video, GST_FORMAT_TIME, position);
    ASSERT_TRUE(GST_CLOCK_TIME_IS_VALID(stream));
    EXPECT_EQ(gst_segment_to_stream_time(&text, GST_FORMAT_TIME, stream), stream);
    uint64_t there = 0;
    uint64_t here = 0;
    const int video_sign =
        gst_segment_to_running_time_full(&video, GST_FORMAT_TIME, position, &there);
    const int text_sign = gst_segment_to_running_time_full(&text, GST_FORMAT_TIME, stream, &here);
    if (video_sign == text_sign) {
      EXPECT_LE(distance(there, here), tolerance) << position;
    } else {
      EXPECT_LE(there + here, tolerance) << position;
    }
  }
  EXPECT_EQ(text.start, text.time);
  EXPECT_EQ(text.position, text.rate > 0 ? text.start : text.stop);
}

constexpr uint64_t kSec = GST_SECOND;
constexpr uint64_t kNever = GST_CLOCK_TIME_NONE;
INSTANTIATE_TEST_SUITE_P(
    Cases, Segment,
    ::testing::Values(Case{"from_zero", 1, 1, 0, kNever, 0, 0, 0},
                      Case{"edit_list", 1, 1, 200 * GST_MSECOND, 8 * kSec + 7, 0, 0, 0},
                      Case{"far_start", 1, 1, 3600000 * kSec, kNever, 0, 0, 0},
                      Case{"seek", 1, 1, 7 * kSec, 9 * kSec, 7 * kSec, 0, 0},
                      Case{"seek_in_edit_list", 1, 1, 7 * kSec + 83, 9 * kSec, 7 * kSec, 5, 0},
                      Case{"no_flush", 1, 1, 7 * kSec, 9 * kSec, 7 * kSec, 21 * kSec, 0},
                      Case{"offset", 1, 1, 7 * kSec, 9 * kSec, 6 * kSec, 3 * kSec, kSec / 3},
                      Case{"fast", 2, 1, 7 * kSec, 19 * kSec, 6 * kSec, 3 * kSec, 0},
                      Case{"slow", 0.3, 1, 7 * kSec, 19 * kSec, 6 * kSec, 3 * kSec, kSec},
                      Case{"backwards", -1, 1, 2 * kSec, 19 * kSec, kSec, 3 * kSec, 0},
                      Case{"backwards_offset", -1, 1, 2 * kSec, 19 * kSec, kSec, 0, 2 * kSec},
                      Case{"backwards_fast", -8, 1, 2 * kSec, 19 * kSec, kSec, 3 * kSec, 0},
                      Case{"applied", 1, 4, 2 * kSec, 19 * kSec, kSec, 3 * kSec, kSec},
                      Case{"applied_open", 1, 2.5, 2 * kSec, kNever, kSec, 3 * kSec, 0},
                      Case{"applied_backwards", 1, -2, 2 * kSec, 19 * kSec, kSec, 3 * kSec, kSec},
                      Case{"both_backwards", -1, -1, 2 * kSec, 19 * kSec, kSec, 3 * kSec, kSec},
                      Case{"all", -1.5, 2, 2 * kSec, 19 * kSec, kSec, 3 * kSec, kSec}),
    [](const ::testing::TestParamInfo<Case>& one) { return one.param.name; });

TEST(SegmentOf, without_stream_time_comes_back_as_it_is) {
  GstSegment bytes;
  gst_segment_init(&bytes, GST_FORMAT_BYTES);
  bytes.start = 7;
  const GstSegment unchanged = text_segment(bytes);
  EXPECT_TRUE(gst_segment_is_equal(&unchanged, &bytes));
  GstSegment unknown = segment_of({"", 1, 1, 7, kNever, kNever, 0, 0});
  const GstSegment still = text_segment(unknown);
  EXPECT_TRUE(gst_segment_is_equal(&still, &unknown));
}

TEST(SegmentOf, event_keeps_its_number_and_flags) {
  gst_init(nullptr, nullptr);
  GstSegment video = segment_of({"", 1, 1, 7, kNever, 3, 0, 0});
  video.flags = GST_SEGMENT_FLAG_SEGMENT;
  video.duration = 50;
  const EventPtr event(gst_event_new_segment(&video));
  const EventPtr made = text_segment_event(event.get());
  EXPECT_EQ(gst_event_get_seqnum(made.get()), gst_event_get_seqnum(event.get()));
  const GstSegment* text = nullptr;
  gst_event_parse_segment(made.get(), &text);
  EXPECT_EQ(text->start, 3u);
  EXPECT_EQ(text->flags, GST_SEGMENT_FLAG_SEGMENT);
  EXPECT_EQ(text->duration, 50u);
}

}  // namespace
}  // namespace gstvlm
