// SPDX-License-Identifier: LGPL-2.1-or-later
#include "fetch.h"

#include <gst/gst.h>

#include <memory>

#include "interrupt.h"
#include "reach.h"

namespace describe {

namespace {

struct PipelineStop {
  void operator()(GstElement* pipeline) const {
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(pipeline);
  }
};

struct Download {
  std::vector<uint8_t> bytes;  // written by the streaming thread until EOS
  uint64_t max_bytes = 0;
};

vlm::Error failure(vlm::ErrorKind kind, const std::string& why) {
  return {kind, why, {}};
}

void on_buffer(GstElement* sink, GstBuffer* buffer, GstPad*, gpointer data) {
  auto* download = static_cast<Download*>(data);
  const size_t size = gst_buffer_get_size(buffer);
  const size_t have = download->bytes.size();
  if (have + size > download->max_bytes) {
    GST_ELEMENT_ERROR(sink, RESOURCE, NO_SPACE_LEFT, ("It is too large."), (nullptr));
    return;
  }
  download->bytes.resize(have + size);
  gst_buffer_extract(buffer, 0, download->bytes.data() + have, size);
}

vlm::Status wait_for_end(GstElement* pipeline, Reach reach) {
  constexpr auto kHeard =
      static_cast<GstMessageType>(GST_MESSAGE_ERROR | GST_MESSAGE_EOS | GST_MESSAGE_ELEMENT);
  const std::unique_ptr<GstBus, decltype(&gst_object_unref)> bus(gst_element_get_bus(pipeline),
                                                                 gst_object_unref);
  GstMessage* message = nullptr;
  while (message == nullptr) {
    message = gst_bus_timed_pop_filtered(bus.get(), 100 * GST_MSECOND, kHeard);
    if (message != nullptr && GST_MESSAGE_TYPE(message) == GST_MESSAGE_ELEMENT) {
      reach.note(message);
      gst_clear_message(&message);
      continue;
    }
    if (message == nullptr && interrupted()) {
      return failure(vlm::ErrorKind::kCancelled, "was interrupted");
    }
  }
  vlm::Status status = vlm::ok_status();
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    GError* error = nullptr;
    char* debug = nullptr;
    gst_message_parse_error(message, &error, &debug);
    const std::string why = reach.explain(*error, debug != nullptr ? debug : "");
    status = failure(vlm::ErrorKind::kIo, "can't be read: " + why);
    g_error_free(error);
    g_free(debug);
  }
  gst_message_unref(message);
  return status;
}

}  // namespace

vlm::Result<std::vector<uint8_t>> fetch(const std::string& uri, uint64_t max_bytes) {
  GError* error = nullptr;
  GstElement* source = gst_element_make_from_uri(GST_URI_SRC, uri.c_str(), nullptr, &error);
  if (source == nullptr) {
    const std::string why = error != nullptr ? error->message : "GStreamer has no source for it";
    g_clear_error(&error);
    return failure(vlm::ErrorKind::kUnsupported, "can't be read: " + why);
  }
  GstElement* sink = gst_element_factory_make("fakesink", nullptr);
  const std::unique_ptr<GstElement, PipelineStop> pipeline(gst_pipeline_new(nullptr));
  gst_bin_add_many(GST_BIN(pipeline.get()), source, sink, nullptr);
  Download download;
  download.max_bytes = max_bytes;
  g_object_set(sink, "sync", FALSE, "signal-handoffs", TRUE, nullptr);
  g_signal_connect(sink, "handoff", G_CALLBACK(on_buffer), &download);
  gst_element_link(source, sink);
  gst_element_set_state(pipeline.get(), GST_STATE_PLAYING);
  const vlm::Status status = wait_for_end(pipeline.get(), Reach(uri));
  gst_element_set_state(pipeline.get(), GST_STATE_NULL);
  if (!status) return status.error();
  return std::move(download.bytes);
}

}  // namespace describe
