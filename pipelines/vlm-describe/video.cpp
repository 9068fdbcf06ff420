// SPDX-License-Identifier: LGPL-2.1-or-later
#include "video.h"

#include <gst/gst.h>
#include <gst/pbutils/pbutils.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "element.h"
#include "interrupt.h"
#include "message.h"
#include "streaming.h"

namespace describe {

namespace {

constexpr GstClockTime kPollPeriod = 100 * GST_MSECOND;
/// How long a live source may take to end once it was asked to.
constexpr auto kEndTimeout = std::chrono::seconds(10);
/// How long nothing may move in a recording that has shown no video yet.
constexpr auto kStillTimeout = std::chrono::seconds(3);
constexpr const char* kBlocked = "vlm-describe-blocked";

vlm::Error failure(vlm::ErrorKind kind, std::string message, std::string detail = {}) {
  return {kind, std::move(message), std::move(detail)};
}

struct MessageUnref {
  void operator()(GstMessage* message) const { gst_message_unref(message); }
};
using MessagePtr = std::unique_ptr<GstMessage, MessageUnref>;

/// One video from its first state change to its last.
class VideoRun {
 public:
  VideoRun(const Settings& settings, const Input& input, const VideoReceiver& receiver,
           Progress& progress)
      : settings_(settings), input_(input), receiver_(receiver), progress_(progress) {}
  ~VideoRun();
  VideoRun(const VideoRun&) = delete;
  VideoRun& operator=(const VideoRun&) = delete;

  vlm::Status run(const std::string& trace_path);

 private:
  enum class Step { kGoOn, kDone };

  static void on_pad_added(GstElement* source, GstPad* pad, gpointer self);
  static void on_no_more_pads(GstElement* source, gpointer self);
  static GstPadProbeReturn on_first_buffer(GstPad* pad, GstPadProbeInfo* info, gpointer self);

  vlm::Status build(const std::string& trace_path);
  vlm::Result<Step> handle(GstMessage* message);
  bool stands_still();
  vlm::Status handle_prerolled();
  vlm::Status handle_interrupt();
  vlm::Status begin_output();
  vlm::Status take(const GstStructure* structure);
  vlm::Status cut();
  vlm::Status at_end() const;
  vlm::Error error_of(GstMessage* message) const;
  bool wants_part() const { return settings_.start_ns || settings_.end_ns; }

  const Settings& settings_;
  const Input& input_;
  const VideoReceiver& receiver_;
  Progress& progress_;

  GstElement* pipeline_ = nullptr;
  GstElement* describe_ = nullptr;  // owned by the pipeline
  GstBus* bus_ = nullptr;
  std::string missing_plugin_;
  std::vector<Record> early_;  // came before it was known whether the source is live
  bool live_ = false;
  bool begun_ = false;
  bool asked_to_end_ = false;
  std::chrono::steady_clock::time_point end_deadline_;
  std::optional<std::chrono::steady_clock::time_point> still_since_;
  uint64_t records_ = 0;
  uint64_t duration_ns_ = 0;

  // Shared with the streaming threads.
  std::atomic<bool> have_video_ = false;
  std::atomic<bool> cut_done_ = false;
};

VideoRun::~VideoRun() {
  if (pipeline_ != nullptr) {
    gst_element_set_state(pipeline_, GST_STATE_NULL);
    gst_object_unref(pipeline_);
  }
  if (bus_ != nullptr) gst_object_unref(bus_);
}

GstPadProbeReturn VideoRun::on_first_buffer(GstPad*, GstPadProbeInfo*, gpointer data) {
  auto* self = static_cast<VideoRun*>(data);
  if (self->cut_done_) return GST_PAD_PROBE_REMOVE;
  // Nothing of the beginning reaches the element: the video waits here for the seek.
  gst_element_post_message(
      self->pipeline_,
      gst_message_new_application(GST_OBJECT(self->pipeline_), gst_structure_new_empty(kBlocked)));
  return GST_PAD_PROBE_OK;
}

void VideoRun::on_pad_added(GstElement*, GstPad* pad, gpointer data) {
  auto* self = static_cast<VideoRun*>(data);
  GstPad* sink = gst_element_get_static_pad(self->describe_, "sink");
  if (!gst_pad_is_linked(sink) && gst_pad_link(pad, sink) == GST_PAD_LINK_OK) {
    self->have_video_ = true;
    if (self->wants_part()) {
      const auto where =
          static_cast<GstPadProbeType>(GST_PAD_PROBE_TYPE_BLOCK | GST_PAD_PROBE_TYPE_BUFFER);
      gst_pad_add_probe(pad, where, on_first_buffer, self, nullptr);
    }
  }
  gst_object_unref(sink);
}

void VideoRun::on_no_more_pads(GstElement* source, gpointer data) {
  if (static_cast<VideoRun*>(data)->have_video_) return;
  GST_ELEMENT_ERROR(source, STREAM, WRONG_TYPE, ("It holds no video."), (nullptr));
}

vlm::Status VideoRun::build(const std::string& trace_path) {
  pipeline_ = gst_pipeline_new(nullptr);
  bus_ = gst_element_get_bus(pipeline_);
  GstElement* source = gst_element_factory_make("uridecodebin", nullptr);
  describe_ = gst_element_factory_make("vlmdescribe", nullptr);
  GstElement* sink = gst_element_factory_make("fakesink", nullptr);
  for (GstElement* element : {source, describe_, sink}) {
    if (element != nullptr) gst_bin_add(GST_BIN(pipeline_), element);
  }
  if (source == nullptr || describe_ == nullptr || sink == nullptr) {
    return failure(vlm::ErrorKind::kInternal,
                   "GStreamer's basic elements are missing; install gstreamer1.0-plugins-base");
  }
  GstCaps* caps = gst_caps_from_string("video/x-raw(ANY)");
  g_object_set(source, "uri", input_.uri.c_str(), "caps", caps, "expose-all-streams", FALSE,
               nullptr);
  gst_caps_unref(caps);
  g_signal_connect(source, "pad-added", G_CALLBACK(on_pad_added), this);
  g_signal_connect(source, "no-more-pads", G_CALLBACK(on_no_more_pads), this);
  g_object_set(sink, "sync", FALSE, "qos", FALSE, "enable-last-sample", FALSE, nullptr);
  if (vlm::Status status = configure_element(describe_, settings_, trace_path); !status) {
    return status;
  }
  if (!input_.path.empty()) gst_util_set_object_arg(G_OBJECT(describe_), "mode", "recorded");
  if (!gst_element_link(describe_, sink)) {
    return failure(vlm::ErrorKind::kInternal, "the pipeline could not be put together");
  }
  return vlm::ok_status();
}

vlm::Status VideoRun::run(const std::string& trace_path) {
  if (vlm::Status status = build(trace_path); !status) return status;
  const GstStateChangeReturn change = gst_element_set_state(pipeline_, GST_STATE_PAUSED);
  if (change == GST_STATE_CHANGE_NO_PREROLL) {
    live_ = true;
    if (wants_part()) {
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "--start and --end need a recording, and this source is live");
    }
    if (vlm::Status status = begin_output(); !status) return status;
    gst_element_set_state(pipeline_, GST_STATE_PLAYING);
  }
  for (;;) {
    const MessagePtr message(gst_bus_timed_pop(bus_, kPollPeriod));
    if (interrupted()) {
      if (vlm::Status status = handle_interrupt(); !status) return status;
    }
    if (message != nullptr) {
      const vlm::Result<Step> step = handle(message.get());
      if (!step) return step.error();
      if (*step == Step::kDone) return at_end();
    } else if (change == GST_STATE_CHANGE_FAILURE) {
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "GStreamer could not open it, and gave no reason");
    } else if (stands_still()) {
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "no video was found in it; it may be cut off or broken");
    }
    if (asked_to_end_ && std::chrono::steady_clock::now() > end_deadline_) return at_end();
  }
}

/// decodebin drops the error of a demuxer that fails at once, while it is still being put in place;
/// then nothing would ever come.
bool VideoRun::stands_still() {
  if (begun_ || have_video_ || input_.path.empty() || has_running_task(GST_BIN(pipeline_))) {
    still_since_.reset();
    return false;
  }
  const auto now = std::chrono::steady_clock::now();
  if (!still_since_) still_since_ = now;
  return now - *still_since_ > kStillTimeout;
}

/// A live source ends properly, so that what is in flight still comes out.
vlm::Status VideoRun::handle_interrupt() {
  if (!live_) return failure(vlm::ErrorKind::kCancelled, "interrupted");
  if (!asked_to_end_) {
    asked_to_end_ = true;
    end_deadline_ = std::chrono::steady_clock::now() + kEndTimeout;
    gst_element_send_event(pipeline_, gst_event_new_eos());
  }
  return vlm::ok_status();
}

vlm::Status VideoRun::at_end() const {
  if (records_ > 0 || asked_to_end_) return vlm::ok_status();
  return failure(vlm::ErrorKind::kInvalidArgument,
                 wants_part() ? "there is no picture between --start and --end"
                              : "it holds no picture that could be decoded");
}

vlm::Result<VideoRun::Step> VideoRun::handle(GstMessage* message) {
  vlm::Status status = vlm::ok_status();
  switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_ERROR:
      return error_of(message);
    case GST_MESSAGE_EOS:
      return Step::kDone;
    case GST_MESSAGE_ASYNC_DONE:
      if (GST_MESSAGE_SRC(message) == GST_OBJECT(pipeline_)) status = handle_prerolled();
      break;
    case GST_MESSAGE_APPLICATION:
      if (gst_message_has_name(message, kBlocked)) status = cut();
      break;
    case GST_MESSAGE_ELEMENT:
      if (gst_is_missing_plugin_message(message)) {
        char* what = gst_missing_plugin_message_get_description(message);
        missing_plugin_ = what;
        g_free(what);
      } else if (GST_MESSAGE_SRC(message) == GST_OBJECT(describe_)) {
        status = take(gst_message_get_structure(message));
      }
      break;
    case GST_MESSAGE_LATENCY:
      gst_bin_recalculate_latency(GST_BIN(pipeline_));
      break;
    case GST_MESSAGE_WARNING: {
      GError* warning = nullptr;
      gst_message_parse_warning(message, &warning, nullptr);
      progress_.say(input_.source + ": warning: " + warning->message);
      g_error_free(warning);
      break;
    }
    default:
      break;
  }
  if (!status) return status.error();
  return Step::kGoOn;
}

/// A recording that is ready to play. One of unknown length from elsewhere may have no end: its
/// output grows as that of a live source.
vlm::Status VideoRun::handle_prerolled() {
  if (begun_ || (wants_part() && !cut_done_)) return vlm::ok_status();
  gint64 duration = 0;
  if (gst_element_query_duration(pipeline_, GST_FORMAT_TIME, &duration) && duration > 0) {
    duration_ns_ = static_cast<uint64_t>(duration);
  }
  if (settings_.end_ns) duration_ns_ = std::min(duration_ns_, *settings_.end_ns);
  if (duration_ns_ == 0 && input_.path.empty()) live_ = true;
  if (vlm::Status status = begin_output(); !status) return status;
  gst_element_set_state(pipeline_, GST_STATE_PLAYING);
  return vlm::ok_status();
}

vlm::Status VideoRun::begin_output() {
  begun_ = true;
  progress_.begin(input_.source);
  if (vlm::Status status = receiver_.begin(live_); !status) return status;
  for (const Record& record : early_) {
    if (vlm::Status status = receiver_.add(record); !status) return status;
  }
  early_.clear();
  return vlm::ok_status();
}

vlm::Status VideoRun::take(const GstStructure* structure) {
  std::optional<Record> record = to_record(structure, input_.source);
  if (!record) return vlm::ok_status();
  ++records_;
  if (!begun_) {
    early_.push_back(std::move(*record));
    return vlm::ok_status();
  }
  if (vlm::Status status = receiver_.add(*record); !status) return status;
  progress_.position(record->pts_ns + record->duration_ns.value_or(0), live_ ? 0 : duration_ns_);
  return vlm::ok_status();
}

/// Seeks to the wanted part while the video waits in front of the element.
vlm::Status VideoRun::cut() {
  if (cut_done_.exchange(true)) return vlm::ok_status();
  const auto flags = static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE);
  const GstSeekType stop_type = settings_.end_ns ? GST_SEEK_TYPE_SET : GST_SEEK_TYPE_NONE;
  const gint64 stop = settings_.end_ns ? static_cast<gint64>(*settings_.end_ns) : -1;
  if (!gst_element_seek(pipeline_, 1.0, GST_FORMAT_TIME, flags, GST_SEEK_TYPE_SET,
                        static_cast<gint64>(settings_.start_ns.value_or(0)), stop_type, stop)) {
    return failure(vlm::ErrorKind::kUnsupported,
                   "--start and --end don't work here, as it can't be sought in");
  }
  return vlm::ok_status();
}

vlm::Error VideoRun::error_of(GstMessage* message) const {
  GError* error = nullptr;
  char* debug = nullptr;
  const GstStructure* details = nullptr;
  gst_message_parse_error(message, &error, &debug);
  gst_message_parse_error_details(message, &details);
  const char* stage = details != nullptr ? gst_structure_get_string(details, "stage") : nullptr;
  const bool loading = stage != nullptr && g_str_equal(stage, "load");
  vlm::Error result =
      failure(loading ? vlm::ErrorKind::kInvalidModel : vlm::ErrorKind::kInvalidArgument,
              error->message, debug != nullptr ? debug : "");
  if (!missing_plugin_.empty() && GST_MESSAGE_SRC(message) != GST_OBJECT(describe_)) {
    result.message = "GStreamer lacks here what decodes it: " + missing_plugin_ +
                     " (gstreamer1.0-libav has most decoders)";
  }
  g_error_free(error);
  g_free(debug);
  return result;
}

}  // namespace

vlm::Status prepare_gstreamer(const std::string& plugin) {
  static bool done = false;
  if (done) return vlm::ok_status();
  GError* error = nullptr;
  if (!gst_init_check(nullptr, nullptr, &error)) {
    const std::string why = error != nullptr ? error->message : "no reason given";
    g_clear_error(&error);
    return failure(vlm::ErrorKind::kInternal, "GStreamer could not be started: " + why);
  }
  gst_pb_utils_init();
  std::string why = "it is not at \"" + plugin + "\" nor where GStreamer looks";
  std::error_code ignored;
  if (std::filesystem::exists(plugin, ignored)) {
    GstPlugin* loaded = gst_plugin_load_file(plugin.c_str(), &error);
    if (loaded != nullptr) gst_object_unref(loaded);
    if (error != nullptr) why = error->message;
    g_clear_error(&error);
  }
  GstElementFactory* factory = gst_element_factory_find("vlmdescribe");
  if (factory == nullptr) {
    return failure(vlm::ErrorKind::kNotFound, "GStreamer's element vlmdescribe is missing: " + why);
  }
  gst_object_unref(factory);
  done = true;
  return vlm::ok_status();
}

vlm::Status describe_video(const Settings& settings, const Input& input,
                           const std::string& trace_path, const VideoReceiver& receiver,
                           Progress& progress) {
  if (!gst_uri_is_valid(input.uri.c_str())) {
    return failure(vlm::ErrorKind::kInvalidArgument, "it is no valid URI; write scheme://PLACE");
  }
  char* scheme = gst_uri_get_protocol(input.uri.c_str());
  const bool known = gst_uri_protocol_is_supported(GST_URI_SRC, scheme);
  const std::string name = scheme;
  g_free(scheme);
  if (!known) {
    return failure(vlm::ErrorKind::kUnsupported,
                   "GStreamer has nothing here that reads " + name + ": URIs");
  }
  return VideoRun(settings, input, receiver, progress).run(trace_path);
}

}  // namespace describe
