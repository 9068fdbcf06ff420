// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmstream.h"

#define GST_CAT_DEFAULT gst_vlm_debug

#include <algorithm>
#include <cmath>

#include "gstvlmanalytics.h"
#include "gstvlmdescription.h"
#include "gstvlmsegment.h"

namespace gstvlm {
namespace {

constexpr unsigned kFramesLeftOut = GST_SEGMENT_FLAG_TRICKMODE |
                                    GST_SEGMENT_FLAG_TRICKMODE_KEY_UNITS |
                                    GST_SEGMENT_FLAG_TRICKMODE_FORWARD_PREDICTED;

// Whether times of both segments mean the same, so that a window may go on.
bool same_mapping(const GstSegment& a, const GstSegment& b) {
  return a.format == b.format && a.rate == b.rate && a.applied_rate == b.applied_rate &&
         a.base == b.base && a.start == b.start && a.time == b.time && a.offset == b.offset;
}

uint64_t frame_duration(const GstVideoInfo& info) {
  if (GST_VIDEO_INFO_FPS_N(&info) <= 0 || GST_VIDEO_INFO_FPS_D(&info) <= 0) {
    return kNoTime;
  }
  return gst_util_uint64_scale_int(GST_SECOND, GST_VIDEO_INFO_FPS_D(&info),
                                   GST_VIDEO_INFO_FPS_N(&info));
}

}  // namespace

void Stream::start() {
  gst_segment_init(&segment_, GST_FORMAT_TIME);
  gst_video_info_init(&look_.info);
  look_.orientation = GST_VIDEO_ORIENTATION_IDENTITY;
  sampler_.reset();
  silence_.clear();
  sampler_.set_segment(segment_);
  next_pts_ = kNoTime;
  mode_known_ = false;
  stream_.reset();
  text_stream_.reset();
  text_segment_.reset();
  shared_.newest_time = kNoTime;
  shared_.latest.clear();
  meta_policy_ = shared_.streaming().meta_policy;
  shared_.held.start(meta_policy_ == MetaPolicy::kExact);
}

void Stream::stop() {
  sampler_.release();
}

void Stream::give_back() {
  sampler_.give_back();
  shared_.held.give_back();
}

GstFlowReturn Stream::chain(BufferPtr buffer) {
  shared_.stats.count_frame();
  if (const GstFlowReturn flow = ensure_mode(); flow != GST_FLOW_OK) {
    return flow;
  }
  const std::optional<Moment> moment = place(buffer.get());
  if (moment) {
    gst_object_sync_values(GST_OBJECT(shared_.element), moment->time.start_ns);
    // First, since its text may be ready before anything else is done here.
    shared_.newest_time = moment->time.start_ns;
  }
  const bool active = shared_.streaming().active;
  if (const GstFlowReturn flow = look_at(buffer.get(), moment, active); flow != GST_FLOW_OK) {
    return flow;
  }
  if (shared_.dispatcher.failed()) {
    return GST_FLOW_ERROR;
  }
  if (moment) {
    declare_silent(moment->time);
  }
  return pass(std::move(buffer), moment);
}

GstFlowReturn Stream::look_at(GstBuffer* buffer, const std::optional<Moment>& moment, bool active) {
  if (moment) {
    const std::optional<Span> silent =
        silence_.frame(moment->time.start_ns, moment->time.duration_ns);
    if (const GstFlowReturn flow = show_nothing(silent); flow != GST_FLOW_OK) {
      return flow;
    }
  }
  if (!active) {
    // What was described long ago says nothing of this.
    shared_.latest.clear();
    return sampler_.interrupt();
  }
  if (!moment) {
    return GST_FLOW_OK;
  }
  const bool empty = gst_buffer_get_size(buffer) == 0;
  if (empty && GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_GAP)) {
    const uint64_t start = moment->time.start_ns;
    const uint64_t length = moment->time.duration_ns == kNoTime ? 0 : moment->time.duration_ns;
    return sampler_.gap(start, start + length);
  }
  return sampler_.frame(buffer, *moment);
}

GstFlowReturn Stream::pass(BufferPtr buffer, const std::optional<Moment>& moment) {
  if (meta_policy_ == MetaPolicy::kExact) {
    shared_.held.add(std::move(buffer), moment ? sampler_.frame_serial() : kNoTime);
    return release_held();
  }
  if (meta_policy_ == MetaPolicy::kLatest) {
    if (const auto latest = shared_.latest.get()) {
      // Copies the buffer's header where somebody else holds it too, never the memory.
      buffer.reset(gst_buffer_make_writable(buffer.release()));
      attach_description(buffer.get(), latest.get());
      attach_analytics(buffer.get(), latest.get());
    }
  }
  return push(std::move(buffer));
}

// Whoever wants the texts alone need not link the video.
GstFlowReturn Stream::push(BufferPtr buffer) {
  const GstFlowReturn flow = gst_pad_push(src_, buffer.release());
  const GstFlowReturn text = shared_.text.flow();
  if (flow == GST_FLOW_NOT_LINKED && text != GST_FLOW_NOT_LINKED) {
    return text == GST_FLOW_OK || text == GST_FLOW_FLUSHING ? GST_FLOW_OK : text;
  }
  return flow;
}

GstFlowReturn Stream::release_held() {
  while (true) {
    HeldVideo::Item item = shared_.held.take();
    if (item.event != nullptr) {
      gst_pad_push_event(src_, item.event.release());
      continue;
    }
    if (item.buffer != nullptr) {
      const GstFlowReturn flow = push(std::move(item.buffer));
      if (flow != GST_FLOW_OK) {
        return flow;
      }
      continue;
    }
    const uint64_t limit = shared_.streaming().max_held_bytes;
    if (shared_.held.bytes() <= limit || shared_.held.empty()) {
      return GST_FLOW_OK;
    }
    if (shared_.held.front_serial() == sampler_.open_serial()) {
      post_error(shared_.element,
                 {vlm::ErrorKind::kOutOfMemory,
                  "The video of one window takes more than the " + std::to_string(limit) +
                      " bytes of max-held-bytes; raise it, shorten interval, or use "
                      "meta-policy=latest.",
                  {}},
                 Stage::kWindow);
      shared_.dispatcher.fail();
      return GST_FLOW_ERROR;
    }
    if (!shared_.held.wait()) {
      return GST_FLOW_FLUSHING;
    }
    if (shared_.dispatcher.failed()) {
      return GST_FLOW_ERROR;
    }
  }
}

std::optional<Moment> Stream::place(GstBuffer* buffer) {
  if (segment_.format != GST_FORMAT_TIME) {
    return std::nullopt;
  }
  uint64_t duration = GST_BUFFER_DURATION(buffer);
  if (duration == kNoTime) {
    duration = frame_duration(look_.info);
  }
  const uint64_t pts = pts_of(buffer, duration);
  uint64_t start = 0;
  uint64_t stop = kNoTime;
  if (!gst_segment_clip(&segment_, GST_FORMAT_TIME, pts,
                        duration == kNoTime ? kNoTime : pts + duration, &start, &stop)) {
    return std::nullopt;
  }
  Moment moment;
  moment.pts = start;
  moment.duration = duration == kNoTime || stop == kNoTime ? kNoTime : stop - start;
  moment.running_time = gst_segment_to_running_time(&segment_, GST_FORMAT_TIME, start);
  moment.time.start_ns = gst_segment_to_stream_time(&segment_, GST_FORMAT_TIME, start);
  if (moment.time.start_ns == kNoTime) {
    return std::nullopt;
  }
  moment.time.backwards = (segment_.rate < 0) != (segment_.applied_rate < 0);
  // Where frames are left out for speed, each one stays until the next.
  if (moment.duration != kNoTime && (segment_.flags & kFramesLeftOut) == 0) {
    moment.time.duration_ns = static_cast<uint64_t>(
        std::llround(static_cast<double>(moment.duration) * std::fabs(segment_.applied_rate)));
    if (segment_.applied_rate < 0) {
      // The earliest of what the frame shows comes last.
      moment.time.start_ns -= std::min(moment.time.start_ns, moment.time.duration_ns);
    }
  }
  moment.arrival_us = monotonic_us();
  if (shared_.live) {
    moment.utc_us = g_get_real_time();
  }
  return moment;
}

// Where a buffer without timestamp is, follows from the one before it, or from where the segment is
// entered.
uint64_t Stream::pts_of(GstBuffer* buffer, uint64_t duration) {
  const bool forwards = segment_.rate > 0;
  const uint64_t length = duration == kNoTime ? 0 : duration;
  uint64_t pts = GST_BUFFER_PTS(buffer);
  if (pts == kNoTime && forwards) {
    pts = next_pts_ == kNoTime ? segment_.start : next_pts_;
  } else if (pts == kNoTime) {
    const uint64_t end = next_pts_ == kNoTime ? segment_.stop : next_pts_;
    pts = end == kNoTime ? segment_.start : end - std::min(end, length);
  }
  next_pts_ = forwards ? pts + length : pts;
  return pts;
}

// Once for each stream, at its first buffer.
GstFlowReturn Stream::ensure_mode() {
  if (!mode_known_) {
    const Settings::Streaming streaming = shared_.streaming();
    const bool live =
        streaming.mode == Mode::kLive || (streaming.mode == Mode::kAuto && upstream_is_live());
    shared_.live = live;
    shared_.text_on_arrival = streaming.text_timing == TextTiming::kArrival ||
                              (streaming.text_timing == TextTiming::kAuto && live);
    mode_known_ = true;
    if (live && meta_policy_ == MetaPolicy::kExact) {
      post_error(shared_.element,
                 {vlm::ErrorKind::kInvalidArgument,
                  "meta-policy=exact holds video until it is described, which a live source does "
                  "not allow; use meta-policy=latest, or mode=recorded.",
                  {}},
                 Stage::kWindow);
      shared_.dispatcher.fail();
      return GST_FLOW_ERROR;
    }
  }
  open_text();
  return GST_FLOW_OK;
}

bool Stream::upstream_is_live() const {
  GstQuery* query = gst_query_new_latency();
  gboolean live = TRUE;
  if (gst_pad_peer_query(sink_, query)) {
    gst_query_parse_latency(query, &live, nullptr, nullptr);
  } else {
    post_warning(shared_.element,
                 {vlm::ErrorKind::kInvalidArgument,
                  "Upstream does not tell whether it is live, so mode=auto takes it for live: "
                  "intervals are passed over where the model is slower than the video. Set "
                  "mode=recorded for a recording, or mode=live.",
                  {}},
                 Stage::kWindow);
  }
  gst_query_unref(query);
  return live != FALSE;
}

// How the text pad's segment is to be queued is known only now.
void Stream::open_text() {
  if (text_stream_ != nullptr) {
    put_text_event(std::move(text_stream_));
  }
  if (text_segment_ != nullptr) {
    put_text_event(std::move(text_segment_));
  }
}

// Texts with their window's time belong to the segment they were taken in, so a new one goes behind
// those that are still being made. Texts timed by arrival belong to whatever passes then.
void Stream::put_text_event(EventPtr event) {
  if (!shared_.text_on_arrival) {
    shared_.dispatcher.put_event(std::move(event));
  } else if (GST_EVENT_TYPE(event.get()) == GST_EVENT_STREAM_START) {
    shared_.text.put_stream(event.get());
  } else {
    // Until a frame comes the newest time is the segment's own, not the last one's.
    const GstSegment* next = nullptr;
    gst_event_parse_segment(event.get(), &next);
    shared_.newest_time = next->rate > 0 ? next->start : next->stop;
    shared_.text.put_segment(std::move(event));
  }
}

// Those behind the text pad need not wait for what will not come.
void Stream::declare_silent(const FrameTime& time) {
  const uint64_t duration = time.duration_ns == kNoTime ? 0 : time.duration_ns;
  if (shared_.text_on_arrival) {
    shared_.text.put_gap(time.start_ns, duration);
  } else if (sampler_.frame_serial() == kNoTime && shared_.text.flow() != GST_FLOW_NOT_LINKED) {
    shared_.dispatcher.put_gap(time.start_ns, duration);
  }
}

bool Stream::event(EventPtr event) {
  switch (GST_EVENT_TYPE(event.get())) {
    case GST_EVENT_FLUSH_START:
      return flush_start(std::move(event));
    case GST_EVENT_FLUSH_STOP:
      return flush_stop(std::move(event));
    case GST_EVENT_STREAM_START:
      finish();
      mode_known_ = false;
      stream_ = ref_event(event.get());
      text_stream_ = ref_event(event.get());
      look_.orientation = GST_VIDEO_ORIENTATION_IDENTITY;
      sampler_.set_look(look_);
      return forward(std::move(event));
    case GST_EVENT_CAPS:
      return caps(std::move(event));
    case GST_EVENT_SEGMENT:
      return segment(std::move(event));
    case GST_EVENT_TAG:
      tags(event.get());
      return forward(std::move(event));
    case GST_EVENT_GAP:
      return gap(std::move(event));
    case GST_EVENT_SEGMENT_DONE:
    case GST_EVENT_EOS:
      return end(std::move(event));
    case GST_EVENT_INSTANT_RATE_CHANGE:
      // Sinks behind the text pad keep time with those of the video.
      shared_.text.put_event(ref_event(event.get()));
      return forward(std::move(event));
    default:
      return forward(std::move(event));
  }
}

bool Stream::flush_start(EventPtr event) {
  shared_.dispatcher.flush();
  shared_.held.flush();
  shared_.text.flush_start(event.get());
  return gst_pad_push_event(src_, event.release()) != FALSE;
}

bool Stream::flush_stop(EventPtr event) {
  sampler_.reset();
  silence_.clear();
  gst_segment_init(&segment_, GST_FORMAT_TIME);
  sampler_.set_segment(segment_);
  next_pts_ = kNoTime;
  text_stream_ = stream_ == nullptr ? EventPtr() : ref_event(stream_.get());
  text_segment_.reset();
  shared_.newest_time = kNoTime;
  shared_.latest.clear();
  shared_.dispatcher.resume();
  shared_.held.resume();
  shared_.text.flush_stop(event.get());
  return gst_pad_push_event(src_, event.release()) != FALSE;
}

bool Stream::caps(EventPtr event) {
  GstCaps* caps = nullptr;
  gst_event_parse_caps(event.get(), &caps);
  GstVideoInfo info;
  if (!gst_video_info_from_caps(&info, caps)) {
    const std::unique_ptr<gchar, Unref> text(gst_caps_to_string(caps));
    GST_ELEMENT_ERROR(shared_.element, STREAM, FORMAT,
                      ("These caps describe no video that can be read: %s; correct the element or "
                       "caps filter upstream that sets them.",
                       text.get()),
                      (nullptr));
    return false;
  }
  look_.info = info;
  sampler_.set_look(look_);
  return forward(std::move(event));
}

void Stream::tags(GstEvent* event) {
  GstTagList* tags = nullptr;
  gst_event_parse_tag(event, &tags);
  GstVideoOrientationMethod method = GST_VIDEO_ORIENTATION_IDENTITY;
  if (gst_video_orientation_from_tag(tags, &method)) {
    look_.orientation = method;
    sampler_.set_look(look_);
  }
}

bool Stream::segment(EventPtr event) {
  const GstSegment* next = nullptr;
  gst_event_parse_segment(event.get(), &next);
  if (!same_mapping(segment_, *next)) {
    if (finish() == GST_FLOW_FLUSHING) {
      return false;
    }
    next_pts_ = kNoTime;
  }
  gst_segment_copy_into(next, &segment_);
  text_segment_ = text_segment_event(event.get());
  if (segment_.format == GST_FORMAT_TIME) {
    sampler_.set_segment(segment_);
  } else {
    post_warning(shared_.element,
                 {vlm::ErrorKind::kInvalidArgument,
                  std::string("This video has no times (its segment is in ") +
                      gst_format_get_name(segment_.format) +
                      "), so nothing of it is described; put rawvideoparse behind a source of raw "
                      "video, or set format=time on an appsrc.",
                  {}},
                 Stage::kWindow);
  }
  return forward(std::move(event));
}

bool Stream::gap(EventPtr event) {
  GstClockTime pts = 0;
  GstClockTime duration = 0;
  gst_event_parse_gap(event.get(), &pts, &duration);
  if (segment_.format == GST_FORMAT_TIME && ensure_mode() == GST_FLOW_OK) {
    const uint64_t stop = duration == kNoTime ? pts : pts + duration;
    std::optional<Span> span = stream_times(segment_, pts, stop);
    if (span) {
      shared_.newest_time = span->start_ns;
    }
    if (span && !shared_.live && segment_.rate > 0 && segment_.applied_rate > 0) {
      span = silence_.add(*span);
    }
    if (show_nothing(span) == GST_FLOW_FLUSHING) {
      return false;
    }
    next_pts_ = segment_.rate > 0 ? stop : pts;
  }
  return forward(std::move(event));
}

GstFlowReturn Stream::show_nothing(const std::optional<Span>& span) {
  if (!span) {
    return GST_FLOW_OK;
  }
  const GstFlowReturn flow = sampler_.gap(span->start_ns, span->end_ns);
  if (flow == GST_FLOW_OK) {
    declare_silent({span->start_ns, span->end_ns - span->start_ns});
  }
  return flow;
}

GstFlowReturn Stream::finish() {
  const GstFlowReturn flow = show_nothing(silence_.end());
  return flow == GST_FLOW_OK ? sampler_.finish() : flow;
}

// The end of the stream, or of a segment that will be repeated: everything is described first.
bool Stream::end(EventPtr event) {
  GstFlowReturn flow = ensure_mode();
  if (flow == GST_FLOW_OK) {
    flow = finish();
  }
  if (flow == GST_FLOW_OK) {
    std::optional<Clock::time_point> deadline;
    if (shared_.live) {
      deadline = deadline_after(Clock::now(), shared_.streaming().eos_timeout_ns);
    }
    const Offer drained = shared_.dispatcher.drain(deadline);
    if (drained == Offer::kPassedOver) {
      shared_.dispatcher.abandon();
    }
    flow = flow_of(drained);
  }
  if (flow == GST_FLOW_FLUSHING) {
    return false;
  }
  shared_.held.resolve_all();
  release_held();
  shared_.text.put_event(ref_event(event.get()));
  return gst_pad_push_event(src_, event.release()) != FALSE;
}

// In its place among the buffers that are held, if any.
bool Stream::forward(EventPtr event) {
  const auto flags = gst_event_type_get_flags(GST_EVENT_TYPE(event.get()));
  if ((flags & GST_EVENT_TYPE_SERIALIZED) != 0 && !shared_.held.empty()) {
    shared_.held.add(std::move(event));
    return true;
  }
  return gst_pad_push_event(src_, event.release()) != FALSE;
}

}  // namespace gstvlm
