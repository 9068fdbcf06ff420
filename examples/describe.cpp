// SPDX-License-Identifier: LGPL-2.1-or-later
// The smallest application: plays a video through vlmdescribe and prints what it posts.
//
//   describe URI [PROMPT]

#include <gst/gst.h>

#include <cstdio>

namespace {

void print_description(const GstStructure* description) {
  guint64 start = 0;
  gst_structure_get_uint64(description, "stream-time", &start);
  std::printf("%" GST_TIME_FORMAT "  %s\n", GST_TIME_ARGS(start),
              gst_structure_get_string(description, "text"));
}

/// Prints messages until the video ends; the exit status.
int print_until_end(GstBus* bus) {
  for (;;) {
    GstMessage* message = gst_bus_timed_pop(bus, GST_CLOCK_TIME_NONE);
    const GstMessageType type = GST_MESSAGE_TYPE(message);
    if (gst_message_has_name(message, "vlm-description")) {
      print_description(gst_message_get_structure(message));
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
  GstElement* pipeline = gst_parse_launch(
      "uridecodebin name=source ! vlmdescribe name=describe ! fakesink sync=false", &error);
  if (pipeline == nullptr || error != nullptr) {
    std::fprintf(stderr, "%s\n", error->message);
    return 1;
  }
  GstElement* source = gst_bin_get_by_name(GST_BIN(pipeline), "source");
  GstElement* describe = gst_bin_get_by_name(GST_BIN(pipeline), "describe");
  g_object_set(source, "uri", argv[1], nullptr);
  if (argc > 2) g_object_set(describe, "prompt", argv[2], nullptr);
  gst_object_unref(source);
  gst_object_unref(describe);

  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  const int status = print_until_end(bus);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pipeline);
  return status;
}
