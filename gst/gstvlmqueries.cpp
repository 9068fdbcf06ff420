// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmqueries.h"

#include <algorithm>

#include "gstvlmheld.h"

namespace gstvlm {
namespace {

// Differences of times have a sign, so what is longer than this is as good as for ever.
constexpr GstClockTime kLongest = G_MAXINT64;

GstClockTime together(GstClockTime one, GstClockTime other) {
  return one >= kLongest ? one : one + std::min(other, kLongest - one);
}

}  // namespace

gboolean answer_caps(GstPad* pad, GstPad* other, GstQuery* query) {
  GstCaps* filter = nullptr;
  gst_query_parse_caps(query, &filter);
  GstCaps* templ = gst_pad_get_pad_template_caps(pad);
  GstCaps* peer = gst_pad_peer_query_caps(other, filter);
  GstCaps* caps = gst_caps_intersect_full(peer, templ, GST_CAPS_INTERSECT_FIRST);
  gst_query_set_caps_result(query, caps);
  gst_caps_unref(caps);
  gst_caps_unref(peer);
  gst_caps_unref(templ);
  return TRUE;
}

gboolean answer_accept_caps(GstPad* pad, GstPad* other, GstQuery* query) {
  GstCaps* caps = nullptr;
  gst_query_parse_accept_caps(query, &caps);
  GstCaps* templ = gst_pad_get_pad_template_caps(pad);
  const gboolean accepted =
      gst_caps_is_subset(caps, templ) && gst_pad_peer_query_accept_caps(other, caps);
  gst_caps_unref(templ);
  gst_query_set_accept_caps_result(query, accepted);
  return TRUE;
}

gboolean answer_allocation(Shared& shared, GstPad* src, GstQuery* query) {
  if (!gst_pad_peer_query(src, query)) {
    return FALSE;
  }
  const Settings::Streaming streaming = shared.streaming();
  GstCaps* caps = nullptr;
  gst_query_parse_allocation(query, &caps, nullptr);
  if (streaming.active && streaming.meta_policy == MetaPolicy::kExact) {
    shared.held.ask(query, buffers_to_hold(caps, streaming.window_ns(), streaming.max_pending,
                                           streaming.max_held_bytes));
  }
  return TRUE;
}

gboolean answer_text_latency(Shared& shared, GstPad* sink, GstQuery* query) {
  if (!gst_pad_peer_query(sink, query)) {
    return FALSE;
  }
  gboolean live = FALSE;
  GstClockTime min = 0;
  GstClockTime max = 0;
  gst_query_parse_latency(query, &live, &min, &max);
  if (live) {
    const GstClockTime more = text_latency(shared.streaming());
    // An unknown maximum is the longest of all, and stays that.
    gst_query_set_latency(query, live, together(min, more), together(max, more));
  }
  return TRUE;
}

GstClockTime text_latency(const Settings::Streaming& streaming) {
  const bool window =
      streaming.text_timing == TextTiming::kWindow ||
      (streaming.text_timing == TextTiming::kAuto && streaming.mode == Mode::kRecorded);
  return window ? together(streaming.window_ns(), streaming.latency_ns) : 0;
}

void announce_text_latency(Shared& shared, GstPad* sink) {
  if (shared.text.flow() == GST_FLOW_NOT_LINKED) {
    return;
  }
  GstQuery* query = gst_query_new_latency();
  gboolean live = FALSE;
  if (gst_pad_peer_query(sink, query)) {
    gst_query_parse_latency(query, &live, nullptr, nullptr);
  }
  gst_query_unref(query);
  if (live) {
    gst_element_post_message(shared.element, gst_message_new_latency(GST_OBJECT(shared.element)));
  }
}

}  // namespace gstvlm
