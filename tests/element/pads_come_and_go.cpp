// SPDX-License-Identifier: LGPL-2.1-or-later

// For the leaks tracer: text pads are requested, linked, flushed and released while video plays,
// and at last an element fails. Exit status 0 where all that went as it should.

#include <gst/gst.h>

#include <cstdio>
#include <initializer_list>

namespace {

constexpr GstClockTime kPatience = 20 * GST_SECOND;

bool wait_for(GstElement* pipeline, const char* name, GstMessageType type) {
  GstBus* bus = gst_element_get_bus(pipeline);
  bool found = false;
  while (!found) {
    GstMessage* message = gst_bus_timed_pop_filtered(
        bus, kPatience, static_cast<GstMessageType>(type | GST_MESSAGE_ERROR));
    if (message == nullptr) break;
    const bool wanted = GST_MESSAGE_TYPE(message) == type;
    found = wanted && (name == nullptr || gst_message_has_name(message, name));
    const bool failed = GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR;
    gst_message_unref(message);
    if (failed) break;
  }
  gst_object_unref(bus);
  return found;
}

/// One text pad from request to release, with a text in between.
bool come_and_go(GstElement* pipeline, GstElement* describe, bool flush) {
  GstElement* queue = gst_element_factory_make("queue", nullptr);
  GstElement* sink = gst_element_factory_make("fakesink", nullptr);
  g_object_set(sink, "sync", FALSE, "async", FALSE, nullptr);
  gst_bin_add_many(GST_BIN(pipeline), queue, sink, nullptr);
  gst_element_link(queue, sink);
  gst_element_sync_state_with_parent(sink);
  gst_element_sync_state_with_parent(queue);
  GstPad* text = gst_element_request_pad_simple(describe, "text");
  GstPad* into = gst_element_get_static_pad(queue, "sink");
  bool good = text != nullptr && gst_pad_link(text, into) == GST_PAD_LINK_OK &&
              wait_for(pipeline, "vlm-description", GST_MESSAGE_ELEMENT);
  if (flush) {
    GstPad* in = gst_element_get_static_pad(describe, "sink");
    gst_pad_send_event(in, gst_event_new_flush_start());
    gst_pad_send_event(in, gst_event_new_flush_stop(TRUE));
    gst_object_unref(in);
  }
  if (text != nullptr) {
    gst_element_release_request_pad(describe, text);
    gst_object_unref(text);
  }
  gst_object_unref(into);
  for (GstElement* element : {queue, sink}) {
    // After a flush the pipeline may be about to set all its elements playing again.
    gst_element_set_locked_state(element, TRUE);
    gst_element_set_state(element, GST_STATE_NULL);
    gst_bin_remove(GST_BIN(pipeline), element);
  }
  return good;
}

bool pads() {
  GstElement* pipeline = gst_parse_launch(
      "videotestsrc is-live=true ! video/x-raw,width=64,height=32,framerate=100/1 ! "
      "vlmdescribe name=d interval=20000000 model=fake:delay=5 ! fakesink sync=false",
      nullptr);
  GstElement* describe = gst_bin_get_by_name(GST_BIN(pipeline), "d");
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  bool good = wait_for(pipeline, "vlm-description", GST_MESSAGE_ELEMENT);
  // A flush takes the segment away with it, so only the last pad sees one.
  for (int i = 0; i < 10 && good; ++i) good = come_and_go(pipeline, describe, i == 9);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(describe);
  gst_object_unref(pipeline);
  return good;
}

/// An element that fails while its text pad is linked.
bool failure() {
  GstElement* pipeline = gst_parse_launch(
      "videotestsrc num-buffers=100 ! video/x-raw,width=64,height=32,framerate=25/1 ! "
      "vlmdescribe name=d interval=200000000 meta-policy=exact partial=true "
      "model=fake:fail-every=3 ! fakesink d.text ! queue ! fakesink async=false",
      nullptr);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  const bool good = wait_for(pipeline, nullptr, GST_MESSAGE_ERROR);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  const bool good = pads() && failure();
  gst_deinit();
  if (!good) std::fprintf(stderr, "ERROR: something did not go as it should\n");
  return good ? 0 : 1;
}
