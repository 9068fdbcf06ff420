// SPDX-License-Identifier: LGPL-2.1-or-later
// The smallest application: plays a video through vlmdescribe and prints what comes out, three
// ways.
//
//   describe URI [PROMPT]
//
// Each line is a time, the way (message, text or metadata) and the description.

#include <gst/gst.h>

#include <cstdio>
#include <string>

namespace {

// meta-policy=exact holds each frame until it is described; for live video, leave it out.
constexpr const char* kLine =
    "uridecodebin name=source ! vlmdescribe name=describe meta-policy=exact "
    "! fakesink name=frames signal-handoffs=true sync=false "
    "describe.text ! queue ! fakesink name=texts signal-handoffs=true sync=false";

void show(const char* way, guint64 start, const char* text) {
  std::printf("%" GST_TIME_FORMAT "  %-8s  %s\n", GST_TIME_ARGS(start), way, text);
}

void show_description(const char* way, const GstStructure* description) {
  guint64 start = 0;
  gst_structure_get_uint64(description, "stream-time", &start);
  show(way, start, gst_structure_get_string(description, "text"));
}

/// Timed text: buffers of the pad count in stream time.
void on_text(GstElement*, GstBuffer* buffer, GstPad*, gpointer) {
  GstMapInfo map;
  if (!gst_buffer_map(buffer, &map, GST_MAP_READ)) return;
  const std::string text(reinterpret_cast<const char*>(map.data), map.size);
  gst_buffer_unmap(buffer, &map);
  show("text", GST_BUFFER_PTS(buffer), text.c_str());
}

/// Every frame carries the description that covers it; it is shown once.
void on_frame(GstElement*, GstBuffer* buffer, GstPad*, gpointer newest) {
  GstCustomMeta* meta = gst_buffer_get_custom_meta(buffer, "vlm-description");
  if (meta == nullptr) return;
  const GstStructure* description = gst_custom_meta_get_structure(meta);
  guint64 index = 0;
  gst_structure_get_uint64(description, "index", &index);
  if (index == *static_cast<guint64*>(newest)) return;
  *static_cast<guint64*>(newest) = index;
  show_description("metadata", description);
}

/// Prints messages until the video ends; the exit status.
int print_until_end(GstBus* bus) {
  for (;;) {
    GstMessage* message = gst_bus_timed_pop(bus, GST_CLOCK_TIME_NONE);
    const GstMessageType type = GST_MESSAGE_TYPE(message);
    if (gst_message_has_name(message, "vlm-description")) {
      show_description("message", gst_message_get_structure(message));
    } else if (type == GST_MESSAGE_ERROR) {
      GError* error = nullptr;
      gst_message_parse_error(message, &error, nullptr);
      std::fprintf(stderr, "%s\n", error->message);
      g_error_free(error);
    }
    gst_message_unref(message);
    if (type == GST_MESSAGE_ERROR) return 1;
    if (type == GST_MESSAGE_EOS) return 0;
  }
}

}  // namespace

int main(int argc, char** argv) {
  gst_init(&argc, &argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: describe URI [PROMPT]\n");
    return 2;
  }
  GError* error = nullptr;
  GstElement* pipeline = gst_parse_launch(kLine, &error);
  if (pipeline == nullptr || error != nullptr) {
    std::fprintf(stderr, "%s\n", error->message);
    return 1;
  }
  const auto element = [pipeline](const char* name) {
    GstElement* found = gst_bin_get_by_name(GST_BIN(pipeline), name);
    gst_object_unref(found);  // the pipeline keeps it
    return found;
  };
  guint64 newest = G_MAXUINT64;
  g_object_set(element("source"), "uri", argv[1], nullptr);
  if (argc > 2) g_object_set(element("describe"), "prompt", argv[2], nullptr);
  g_signal_connect(element("texts"), "handoff", G_CALLBACK(on_text), nullptr);
  g_signal_connect(element("frames"), "handoff", G_CALLBACK(on_frame), &newest);

  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  const int status = print_until_end(bus);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pipeline);
  return status;
}
