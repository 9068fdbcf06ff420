// SPDX-License-Identifier: LGPL-2.1-or-later
#include "source.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace describe {

namespace {

bool is_http(const std::string& uri) {
  return uri.starts_with("http:") || uri.starts_with("https:");
}

bool is_live(GstPad* pad) {
  GstQuery* query = gst_query_new_latency();
  gboolean live = FALSE;
  if (gst_pad_query(pad, query)) gst_query_parse_latency(query, &live, nullptr, nullptr);
  gst_query_unref(query);
  return live != FALSE;
}

/// The running time of now; 0 where the pipeline does not play yet.
GstClockTime running_time(GstElement* pipeline) {
  const GstClockTime now = gst_element_get_current_running_time(pipeline);
  return GST_CLOCK_TIME_IS_VALID(now) ? now : 0;
}

}  // namespace

Source::Source(const Input& input, const Stage& stage, bool hold)
    : input_(input),
      stage_(stage),
      made_us_(g_get_monotonic_time()),
      hold_(hold),
      newest_us_(made_us_) {
  gst_segment_init(&segment_, GST_FORMAT_TIME);
  bin_ = gst_element_factory_make("uridecodebin", nullptr);
  if (bin_ == nullptr) return;
  GstCaps* caps = gst_caps_from_string("video/x-raw(ANY)");
  g_object_set(bin_, "uri", input.uri.c_str(), "caps", caps, "expose-all-streams", FALSE, nullptr);
  gst_caps_unref(caps);
  g_signal_connect(bin_, "pad-added", G_CALLBACK(on_pad_added), this);
  g_signal_connect(bin_, "deep-element-added", G_CALLBACK(on_element_added), this);
  g_signal_connect(bin_, "no-more-pads", G_CALLBACK(on_no_more_pads), this);
  gst_bin_add(GST_BIN(stage_.pipeline), bin_);
}

Source::~Source() {
  if (bin_ == nullptr) return;
  silence();
  gst_element_set_state(bin_, GST_STATE_NULL);
  gst_bin_remove(GST_BIN(stage_.pipeline), bin_);
}

void Source::silence() {
  silent_ = true;
  const std::lock_guard lock(waiting_mutex_);
  if (waiting_ != nullptr) gst_clock_id_unschedule(waiting_);
}

void Source::start() {
  // Else the pipeline would begin to play anew, and its running time with it.
  g_object_set(bin_, "async-handling", TRUE, nullptr);
  gst_element_sync_state_with_parent(bin_);
}

bool Source::owns(GstObject* object) const {
  return object == GST_OBJECT(bin_) || gst_object_has_as_ancestor(object, GST_OBJECT(bin_));
}

std::chrono::microseconds Source::silence_lasts() const {
  const std::lock_guard lock(waiting_mutex_);
  if (waiting_ != nullptr) return std::chrono::microseconds::zero();
  return std::chrono::microseconds(g_get_monotonic_time() - newest_us_);
}

std::chrono::microseconds Source::age() const {
  return std::chrono::microseconds(g_get_monotonic_time() - made_us_);
}

void Source::post(const char* name) {
  gst_element_post_message(
      bin_, gst_message_new_application(GST_OBJECT(bin_), gst_structure_new_empty(name)));
}

GstPadProbeReturn Source::on_held(GstPad*, GstPadProbeInfo*, gpointer data) {
  auto* self = static_cast<Source*>(data);
  if (!self->hold_) return GST_PAD_PROBE_REMOVE;
  // Nothing of the beginning reaches the element: the video waits here for the seek.
  self->post(kBlocked);
  return GST_PAD_PROBE_OK;
}

/// Pictures that say nothing about their time are shown when they come.
void Source::take_time_from_clock(GstPadProbeInfo* info) {
  GstBuffer* buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  if (GST_BUFFER_PTS_IS_VALID(buffer)) return;
  const GstClockTime now = running_time(stage_.pipeline);
  buffer = gst_buffer_make_writable(buffer);
  GST_BUFFER_PTS(buffer) = now - std::min<GstClockTime>(now, began_at_);
  GST_PAD_PROBE_INFO_DATA(info) = buffer;
}

/// Waits until the picture is to be shown. In front of the element, and not in the sink behind it,
/// so that the end may overtake what waits.
void Source::pace(GstBuffer* buffer) {
  const GstClockTime time =
      gst_segment_to_running_time(&segment_, GST_FORMAT_TIME, GST_BUFFER_PTS(buffer));
  GstClock* clock = gst_element_get_clock(stage_.pipeline);
  const GstClockTime base = gst_element_get_base_time(stage_.pipeline);
  if (clock != nullptr && GST_CLOCK_TIME_IS_VALID(time) && GST_CLOCK_TIME_IS_VALID(base)) {
    const GstClockID id = gst_clock_new_single_shot_id(clock, base + time);
    {
      const std::lock_guard lock(waiting_mutex_);
      waiting_ = id;
    }
    if (!silent_) gst_clock_id_wait(id, nullptr);
    const std::lock_guard lock(waiting_mutex_);
    newest_us_ = g_get_monotonic_time();
    gst_clock_id_unref(std::exchange(waiting_, nullptr));
  }
  g_clear_object(&clock);
}

GstPadProbeReturn Source::on_data(GstPad*, GstPadProbeInfo* info, gpointer data) {
  auto* self = static_cast<Source*>(data);
  if (self->silent_) return GST_PAD_PROBE_DROP;
  if ((info->type & GST_PAD_PROBE_TYPE_BUFFER) != 0) {
    ++self->pictures_;
    self->newest_us_ = g_get_monotonic_time();
    if (self->endless_) self->take_time_from_clock(info);
    if (self->paced_) self->pace(GST_PAD_PROBE_INFO_BUFFER(info));
    return self->silent_ ? GST_PAD_PROBE_DROP : GST_PAD_PROBE_OK;
  }
  GstEvent* event = GST_PAD_PROBE_INFO_EVENT(info);
  if (GST_EVENT_TYPE(event) == GST_EVENT_SEGMENT) gst_event_copy_segment(event, &self->segment_);
  if (GST_EVENT_TYPE(event) != GST_EVENT_EOS) return GST_PAD_PROBE_OK;
  self->ended_ = true;
  if (!self->end_is_loss_) return GST_PAD_PROBE_OK;
  // The element is to go on with the next connection.
  self->post(kEnded);
  return GST_PAD_PROBE_DROP;
}

/// Notes what the video comes in.
void Source::on_element_added(GstBin*, GstBin*, GstElement* element, gpointer data) {
  auto* self = static_cast<Source*>(data);
  GstElementFactory* factory = gst_element_get_factory(element);
  const char* klass = gst_element_get_metadata(element, GST_ELEMENT_METADATA_KLASS);
  if (klass != nullptr && std::strstr(klass, "Adaptive") != nullptr) self->playlist_ = true;
  if (factory == nullptr || std::strcmp(GST_OBJECT_NAME(factory), "multipartdemux") != 0) return;
  // A camera that sends one picture after the other. Without this the demuxer would be waited for
  // to find a second stream.
  self->camera_ = true;
  g_object_set(element, "single-stream", TRUE, nullptr);
}

void Source::on_pad_added(GstElement*, GstPad* pad, gpointer data) {
  auto* self = static_cast<Source*>(data);
  GstPad* sink = gst_element_get_static_pad(self->stage_.describe, "sink");
  if (!gst_pad_is_linked(sink)) {
    self->look_at(pad);
    if (gst_pad_link(pad, sink) == GST_PAD_LINK_OK) self->have_video_ = true;
  }
  gst_object_unref(sink);
}

/// Before anything of it reaches the element.
void Source::look_at(GstPad* pad) {
  endless_ = is_endless(pad);
  // Over HTTP the end of a body of unknown length is mostly meant, but not of a camera's.
  end_is_loss_ = endless_ && (!is_http(input_.uri) || camera_);
  if (endless_ && !is_live(pad)) {
    // It comes as fast as it is taken, what there is of it: played as it was recorded.
    gst_util_set_object_arg(G_OBJECT(stage_.describe), "mode", "live");
    paced_ = true;
    began_at_ = running_time(stage_.pipeline);
    gst_pad_set_offset(pad, static_cast<gint64>(began_at_.load()));
  }
  constexpr auto kData =
      static_cast<GstPadProbeType>(GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM);
  gst_pad_add_probe(pad, kData, on_data, this, nullptr);
  if (hold_) {
    constexpr auto kHeld =
        static_cast<GstPadProbeType>(GST_PAD_PROBE_TYPE_BLOCK | GST_PAD_PROBE_TYPE_BUFFER);
    gst_pad_add_probe(pad, kHeld, on_held, this, nullptr);
  }
}

/// What is made of files has an end even where a container does not say when. A playlist is a file
/// too, but says nothing about the video.
bool Source::is_endless(GstPad* pad) const {
  gint64 length = 0;
  if (!input_.path.empty()) return false;
  if (gst_pad_query_duration(pad, GST_FORMAT_TIME, &length) && length > 0) return false;
  GstElement* reader = nullptr;
  g_object_get(bin_, "source", &reader, nullptr);
  const bool sized = reader != nullptr &&
                     gst_element_query_duration(reader, GST_FORMAT_BYTES, &length) && length > 0;
  g_clear_object(&reader);
  return !sized || playlist_;
}

void Source::on_no_more_pads(GstElement* bin, gpointer data) {
  if (static_cast<Source*>(data)->have_video_) return;
  GST_ELEMENT_ERROR(bin, STREAM, WRONG_TYPE, ("It holds no video."), (nullptr));
}

}  // namespace describe
