// SPDX-License-Identifier: LGPL-2.1-or-later
#include "subtitles.h"

#include <string_view>
#include <utility>

namespace describe {

namespace {

vlm::Error failure(const std::string& message) {
  return {vlm::ErrorKind::kInternal, message, {}};
}

/// WebVTT has character references, SubRip has not: there the arrow is broken up.
std::string escaped(const std::string& text, bool vtt) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = std::string_view(text).substr(i);
    if (vtt && text[i] == '&') {
      result += "&amp;";
    } else if (vtt && text[i] == '<') {
      result += "&lt;";
    } else if (vtt && text[i] == '>') {
      result += "&gt;";
    } else if (!vtt && rest.starts_with("-->")) {
      result += "-- >";
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

vlm::Result<std::unique_ptr<SubtitleEncoder>> SubtitleEncoder::create(const char* element) {
  std::unique_ptr<SubtitleEncoder> self(new SubtitleEncoder);
  self->vtt_ = std::string_view(element) == "webvttenc";
  self->encoder_ = gst_element_factory_make(element, nullptr);
  if (self->encoder_ == nullptr) {
    return failure(std::string("GStreamer's element ") + element +
                   " is missing; install gstreamer1.0-plugins-bad");
  }
  gst_object_ref_sink(self->encoder_);
  if (vlm::Status status = self->start(); !status) return status.error();
  return self;
}

vlm::Status SubtitleEncoder::start() {
  feed_ = gst_pad_new("feed", GST_PAD_SRC);
  drain_ = gst_pad_new("drain", GST_PAD_SINK);
  gst_object_ref_sink(feed_);
  gst_object_ref_sink(drain_);
  gst_pad_set_element_private(drain_, this);
  gst_pad_set_chain_function(drain_, take_output);
  GstPad* in = gst_element_get_static_pad(encoder_, "sink");
  GstPad* out = gst_element_get_static_pad(encoder_, "src");
  const bool linked =
      gst_pad_link(feed_, in) == GST_PAD_LINK_OK && gst_pad_link(out, drain_) == GST_PAD_LINK_OK;
  gst_object_unref(in);
  gst_object_unref(out);
  gst_pad_set_active(drain_, TRUE);
  gst_pad_set_active(feed_, TRUE);
  if (!linked || gst_element_set_state(encoder_, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE) {
    return failure("GStreamer's subtitle encoder could not be started");
  }
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_pad_push_event(feed_, gst_event_new_stream_start("vlm-describe"));
  GstCaps* caps = gst_caps_new_simple("text/x-raw", "format", G_TYPE_STRING, "utf8", nullptr);
  gst_pad_push_event(feed_, gst_event_new_caps(caps));
  gst_caps_unref(caps);
  gst_pad_push_event(feed_, gst_event_new_segment(&segment));
  return vlm::ok_status();
}

SubtitleEncoder::~SubtitleEncoder() {
  if (encoder_ != nullptr) gst_element_set_state(encoder_, GST_STATE_NULL);
  for (GstPad* pad : {feed_, drain_}) {
    if (pad == nullptr) continue;
    gst_pad_set_active(pad, FALSE);
    gst_object_unref(pad);
  }
  if (encoder_ != nullptr) gst_object_unref(encoder_);
}

GstFlowReturn SubtitleEncoder::take_output(GstPad* pad, GstObject*, GstBuffer* buffer) {
  auto* self = static_cast<SubtitleEncoder*>(gst_pad_get_element_private(pad));
  GstMapInfo map;
  if (gst_buffer_map(buffer, &map, GST_MAP_READ)) {
    self->bytes_.append(reinterpret_cast<const char*>(map.data), map.size);
    gst_buffer_unmap(buffer, &map);
  }
  gst_buffer_unref(buffer);
  return GST_FLOW_OK;
}

vlm::Result<std::string> SubtitleEncoder::add(uint64_t start_ns, uint64_t duration_ns,
                                              const std::string& text) {
  const std::string cue = escaped(text, vtt_);
  GstBuffer* buffer = gst_buffer_new_memdup(cue.data(), cue.size());
  GST_BUFFER_PTS(buffer) = start_ns;
  GST_BUFFER_DURATION(buffer) = duration_ns;
  if (gst_pad_push(feed_, buffer) != GST_FLOW_OK) {
    return failure("GStreamer's subtitle encoder refused a description");
  }
  return std::exchange(bytes_, {});
}

}  // namespace describe
