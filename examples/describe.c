// SPDX-License-Identifier: LGPL-2.1-or-later
/* The smallest application: plays a video through vlmdescribe and prints what comes out, three
 * ways.
 *
 *   describe URI [PROMPT]
 *
 * Each line is a time, the way (message, text or metadata) and the description. */

#include <gst/gst.h>
#include <stdio.h>

/* meta-policy=exact holds each frame until it is described; for live video, leave it out. */
static const char line[] =
    "uridecodebin name=source ! vlmdescribe name=describe meta-policy=exact "
    "! fakesink name=frames signal-handoffs=true sync=false "
    "describe.text ! queue ! fakesink name=texts signal-handoffs=true sync=false";

static void show(const char* way, guint64 start, const char* text, int length) {
  printf("%" GST_TIME_FORMAT "  %-8s  %.*s\n", GST_TIME_ARGS(start), way, length, text);
}

static void show_description(const char* way, const GstStructure* description) {
  guint64 start = 0;
  gst_structure_get_uint64(description, "stream-time", &start);
  show(way, start, gst_structure_get_string(description, "text"), G_MAXINT);
}

/* Timed text: buffers of the pad count in stream time. */
static void on_text(GstElement* sink, GstBuffer* buffer, GstPad* pad, gpointer data) {
  GstMapInfo map;
  (void)sink, (void)pad, (void)data;
  if (!gst_buffer_map(buffer, &map, GST_MAP_READ)) return;
  show("text", GST_BUFFER_PTS(buffer), (const char*)map.data, (int)map.size);
  gst_buffer_unmap(buffer, &map);
}

/* Every frame carries the description that covers it; it is shown once. */
static void on_frame(GstElement* sink, GstBuffer* buffer, GstPad* pad, gpointer data) {
  GstCustomMeta* meta = gst_buffer_get_custom_meta(buffer, "vlm-description");
  guint64* newest = data;
  guint64 index = 0;
  (void)sink, (void)pad;
  if (meta == NULL) return;
  gst_structure_get_uint64(gst_custom_meta_get_structure(meta), "index", &index);
  if (index == *newest) return;
  *newest = index;
  show_description("metadata", gst_custom_meta_get_structure(meta));
}

/* Prints messages until the video ends; returns the exit status. */
static int print_until_end(GstBus* bus) {
  for (;;) {
    GstMessage* message = gst_bus_timed_pop(bus, GST_CLOCK_TIME_NONE);
    const GstMessageType type = GST_MESSAGE_TYPE(message);
    if (gst_message_has_name(message, "vlm-description")) {
      show_description("message", gst_message_get_structure(message));
    } else if (type == GST_MESSAGE_ERROR) {
      GError* error = NULL;
      gst_message_parse_error(message, &error, NULL);
      fprintf(stderr, "%s\n", error->message);
      g_error_free(error);
    }
    gst_message_unref(message);
    if (type == GST_MESSAGE_ERROR) return 1;
    if (type == GST_MESSAGE_EOS) return 0;
  }
}

static void set_text(GstElement* pipeline, const char* name, const char* property,
                     const char* value) {
  GstElement* element = gst_bin_get_by_name(GST_BIN(pipeline), name);
  g_object_set(element, property, value, NULL);
  gst_object_unref(element);
}

static void on_handoff(GstElement* pipeline, const char* name, GCallback callback, gpointer data) {
  GstElement* element = gst_bin_get_by_name(GST_BIN(pipeline), name);
  g_signal_connect(element, "handoff", callback, data);
  gst_object_unref(element);
}

int main(int argc, char** argv) {
  GError* error = NULL;
  guint64 newest = G_MAXUINT64;
  gst_init(&argc, &argv);
  if (argc < 2) {
    fprintf(stderr, "usage: describe URI [PROMPT]\n");
    return 2;
  }
  GstElement* pipeline = gst_parse_launch(line, &error);
  if (pipeline == NULL || error != NULL) {
    fprintf(stderr, "%s\n", error->message);
    return 1;
  }
  set_text(pipeline, "source", "uri", argv[1]);
  if (argc > 2) set_text(pipeline, "describe", "prompt", argv[2]);
  on_handoff(pipeline, "texts", G_CALLBACK(on_text), NULL);
  on_handoff(pipeline, "frames", G_CALLBACK(on_frame), &newest);

  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  const int status = print_until_end(bus);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pipeline);
  return status;
}
