// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmsegment.h"

#include <algorithm>
#include <cmath>

namespace gstvlm {
namespace {

// Rounded as GStreamer does when it converts to stream time.
uint64_t scaled(uint64_t value, double rate) {
  return rate == 1.0 ? value : static_cast<uint64_t>(static_cast<double>(value) * rate);
}

bool has_stream_time(const GstSegment& segment) {
  return segment.format == GST_FORMAT_TIME && GST_CLOCK_TIME_IS_VALID(segment.time) &&
         (segment.applied_rate > 0 || GST_CLOCK_TIME_IS_VALID(segment.stop));
}

}  // namespace

std::optional<Span> stream_times(const GstSegment& segment, uint64_t pts, uint64_t stop) {
  uint64_t start = 0;
  uint64_t end = 0;
  if (!gst_segment_clip(&segment, GST_FORMAT_TIME, pts, stop, &start, &end)) {
    return std::nullopt;
  }
  const uint64_t first = gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, start);
  const uint64_t last = gst_segment_to_stream_time(&segment, GST_FORMAT_TIME, end);
  if (first == kNoTime || last == kNoTime) {
    return std::nullopt;
  }
  return Span{std::min(first, last), std::max(first, last)};
}

GstSegment text_segment(const GstSegment& video) {
  GstSegment text = video;
  if (!has_stream_time(video)) {
    return text;
  }
  const double speed = std::fabs(video.applied_rate);
  text.rate = video.rate * video.applied_rate;
  text.applied_rate = 1.0;
  text.start = video.time;
  text.stop = GST_CLOCK_TIME_IS_VALID(video.stop)
                  ? video.time + scaled(video.stop - video.start, speed)
                  : GST_CLOCK_TIME_NONE;
  text.offset = scaled(video.offset, speed);
  text.position = gst_segment_to_stream_time(&video, GST_FORMAT_TIME, video.position);
  if (!GST_CLOCK_TIME_IS_VALID(text.position)) {
    text.position = text.rate > 0 ? text.start : text.stop;
  }
  return text;
}

EventPtr text_segment_event(GstEvent* video) {
  const GstSegment* segment = nullptr;
  gst_event_parse_segment(video, &segment);
  GstSegment text = text_segment(*segment);
  if (text.format != GST_FORMAT_TIME) {
    gst_segment_init(&text, GST_FORMAT_TIME);
  }
  EventPtr event(gst_event_new_segment(&text));
  gst_event_set_seqnum(event.get(), gst_event_get_seqnum(video));
  return event;
}

}  // namespace gstvlm
