// SPDX-License-Identifier: LGPL-2.1-or-later
#include "video.h"

#include <gst/gst.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "backoff.h"
#include "element.h"
#include "interrupt.h"
#include "message.h"
#include "reach.h"
#include "report.h"
#include "source.h"
#include "streaming.h"
#include "values.h"

namespace describe {

namespace {

constexpr const char* kElementsMissing =
    "GStreamer's basic elements are missing; install gstreamer1.0-plugins-base";
constexpr GstClockTime kPollPeriod = 100 * GST_MSECOND;
/// How long a live source may take to end once it was asked to.
constexpr auto kEndTimeout = std::chrono::seconds(10);
/// How long nothing may move in a recording that has shown no video yet.
constexpr auto kStillTimeout = std::chrono::seconds(3);
/// How long a connection may take to show a picture: cameras send whole pictures only now and then.
constexpr std::chrono::nanoseconds kConnectTimeout = std::chrono::seconds(30);

using Clock = std::chrono::steady_clock;

vlm::Error failure(vlm::ErrorKind kind, std::string message, std::string detail = {}) {
  return {kind, std::move(message), std::move(detail)};
}

std::string seconds_text(Clock::duration time) {
  return number_text(std::round(std::chrono::duration<double>(time).count() * 10) / 10) + " s";
}

struct MessageUnref {
  void operator()(GstMessage* message) const { gst_message_unref(message); }
};
using MessagePtr = std::unique_ptr<GstMessage, MessageUnref>;

/// One video from its first state change to its last. A source without an end that is lost is
/// replaced while the pipeline plays on, so that the element's counts and times go on too.
class VideoRun {
 public:
  VideoRun(const Settings& settings, const Input& input, const VideoReceiver& receiver,
           Progress& progress)
      : settings_(settings),
        input_(input),
        receiver_(receiver),
        progress_(progress),
        reach_(input.uri) {}
  ~VideoRun();
  VideoRun(const VideoRun&) = delete;
  VideoRun& operator=(const VideoRun&) = delete;

  vlm::Status run(const std::string& trace_path);

 private:
  enum class Step { kGoOn, kDone };

  vlm::Status build(const std::string& trace_path);
  vlm::Status make_source();
  vlm::Status start();
  vlm::Status play();
  vlm::Result<Step> handle(GstMessage* message);
  vlm::Result<Step> handle_error(GstMessage* message);
  bool stands_still();
  vlm::Status handle_prerolled();
  vlm::Status handle_interrupt();
  vlm::Status begin_output();
  vlm::Status take(const GstStructure* structure);
  vlm::Status cut();
  vlm::Status watch();
  vlm::Status lose(const std::string& why);
  bool gives_up(Clock::time_point now) const;
  vlm::Error given_up(Clock::time_point now) const;
  bool shows_nothing() const;
  std::chrono::nanoseconds patience() const {
    return std::max(kConnectTimeout, settings_.lost_after);
  }
  vlm::Status connect();
  void say_statistics() const;
  vlm::Status at_end() const;
  vlm::Error error_of(GstMessage* message) const;
  bool from_current(GstMessage* message) const {
    return source_ != nullptr && source_->owns(GST_MESSAGE_SRC(message));
  }
  bool wants_part() const { return settings_.start_ns || settings_.end_ns; }
  void state(const std::string& what);

  const Settings& settings_;
  const Input& input_;
  const VideoReceiver& receiver_;
  Progress& progress_;
  Reach reach_;

  Stage stage_;
  GstBus* bus_ = nullptr;
  std::unique_ptr<Source> source_;  // null while a lost one is waited for
  std::vector<Record> early_;       // came before it was known whether the source is live
  bool refused_ = false;            // by the first state change
  bool live_ = false;
  bool begun_ = false;
  bool cut_done_ = false;
  bool asked_to_end_ = false;
  Clock::time_point end_deadline_;
  std::optional<Clock::time_point> still_since_;
  uint64_t records_ = 0;
  uint64_t duration_ns_ = 0;

  // Connections to a source without an end.
  bool reached_ = false;  // there was a picture, ever
  Backoff backoff_;
  std::optional<Clock::time_point> lost_since_;
  std::string why_lost_;
  Clock::time_point retry_at_;
  uint64_t losses_ = 0;
};

VideoRun::~VideoRun() {
  if (source_ != nullptr) source_->silence();
  // With the sink first: the source's threads may wait in it.
  if (stage_.pipeline != nullptr) gst_element_set_state(stage_.pipeline, GST_STATE_NULL);
  source_.reset();
  if (stage_.pipeline != nullptr) gst_object_unref(stage_.pipeline);
  if (bus_ != nullptr) gst_object_unref(bus_);
}

vlm::Status VideoRun::build(const std::string& trace_path) {
  stage_.pipeline = gst_pipeline_new(nullptr);
  bus_ = gst_element_get_bus(stage_.pipeline);
  stage_.describe = gst_element_factory_make("vlmdescribe", nullptr);
  stage_.sink = gst_element_factory_make("fakesink", nullptr);
  for (GstElement* element : {stage_.describe, stage_.sink}) {
    if (element != nullptr) gst_bin_add(GST_BIN(stage_.pipeline), element);
  }
  if (stage_.describe == nullptr || stage_.sink == nullptr) {
    return failure(vlm::ErrorKind::kInternal, kElementsMissing);
  }
  g_object_set(stage_.sink, "sync", FALSE, "qos", FALSE, "enable-last-sample", FALSE, nullptr);
  if (vlm::Status status = configure_element(stage_.describe, settings_, trace_path); !status) {
    return status;
  }
  if (!input_.path.empty()) gst_util_set_object_arg(G_OBJECT(stage_.describe), "mode", "recorded");
  if (!gst_element_link(stage_.describe, stage_.sink)) {
    return failure(vlm::ErrorKind::kInternal, "the pipeline could not be put together");
  }
  return make_source();
}

vlm::Status VideoRun::make_source() {
  source_ = std::make_unique<Source>(input_, stage_, wants_part());
  if (source_->made()) return vlm::ok_status();
  return failure(vlm::ErrorKind::kInternal, kElementsMissing);
}

vlm::Status VideoRun::start() {
  const GstStateChangeReturn change = gst_element_set_state(stage_.pipeline, GST_STATE_PAUSED);
  refused_ = change == GST_STATE_CHANGE_FAILURE;
  if (change != GST_STATE_CHANGE_NO_PREROLL) return vlm::ok_status();
  live_ = true;
  if (wants_part()) {
    return failure(vlm::ErrorKind::kInvalidArgument,
                   "--start and --end need a recording, and this source is live");
  }
  if (vlm::Status status = begin_output(); !status) return status;
  gst_element_set_state(stage_.pipeline, GST_STATE_PLAYING);
  return vlm::ok_status();
}

vlm::Status VideoRun::run(const std::string& trace_path) {
  if (vlm::Status status = build(trace_path); !status) return status;
  if (vlm::Status status = start(); !status) return status;
  const vlm::Status status = play();
  say_statistics();
  return status;
}

vlm::Status VideoRun::play() {
  for (;;) {
    const MessagePtr message(gst_bus_timed_pop(bus_, kPollPeriod));
    if (receiver_.unwanted()) return failure(vlm::ErrorKind::kCancelled, "not wanted any more");
    if (interrupted()) {
      if (vlm::Status status = handle_interrupt(); !status) return status;
    }
    if (message != nullptr) {
      const vlm::Result<Step> step = handle(message.get());
      if (!step) return step.error();
      if (*step == Step::kDone) return at_end();
    } else if (refused_) {
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "GStreamer could not open it, and gave no reason");
    } else if (stands_still()) {
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "no video was found in it; it may be cut off or broken");
    }
    if (shows_nothing()) {
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "no picture came from it in " + seconds_text(patience()) +
                         " (with --lost-after it is waited for longer)");
    }
    if (asked_to_end_ && Clock::now() > end_deadline_) return at_end();
    if (!asked_to_end_ && live_) {
      if (vlm::Status status = watch(); !status) return status;
    }
  }
}

/// decodebin drops the error of a demuxer that fails at once, while it is still being put in place;
/// then nothing would ever come.
bool VideoRun::stands_still() {
  if (begun_ || input_.path.empty() || source_->has_video() ||
      has_running_task(GST_BIN(stage_.pipeline))) {
    still_since_.reset();
    return false;
  }
  const Clock::time_point now = Clock::now();
  if (!still_since_) still_since_ = now;
  return now - *still_since_ > kStillTimeout;
}

/// Something comes, but never a picture. (What is live is watched over.)
bool VideoRun::shows_nothing() const {
  return !begun_ && !live_ && !cut_done_ && !source_->had_picture() && source_->age() > patience();
}

/// A live source ends properly, so that what is in flight still comes out. Nobody asks the source,
/// which may be gone or stuck: the end is sent in its place.
vlm::Status VideoRun::handle_interrupt() {
  if (!live_) return failure(vlm::ErrorKind::kCancelled, "interrupted");
  if (asked_to_end_) return vlm::ok_status();
  asked_to_end_ = true;
  end_deadline_ = Clock::now() + kEndTimeout;
  if (source_ != nullptr) source_->silence();
  GstPad* sink = gst_element_get_static_pad(stage_.describe, "sink");
  gst_pad_send_event(sink, gst_event_new_eos());
  gst_object_unref(sink);
  return vlm::ok_status();
}

/// Looks after the connection to a source without an end.
vlm::Status VideoRun::watch() {
  const Clock::time_point now = Clock::now();
  const bool shows = source_ != nullptr && source_->had_picture();
  if (!shows && gives_up(now)) return given_up(now);
  if (source_ == nullptr) return now < retry_at_ ? vlm::ok_status() : connect();
  if (!shows) {
    return source_->age() < patience() ? vlm::ok_status() : lose("no picture came");
  }
  reached_ = true;
  if (lost_since_) {
    state("is there again after " + seconds_text(now - *lost_since_));
    lost_since_.reset();
  }
  if (!source_->endless() || source_->silence_lasts() < settings_.lost_after) {
    return vlm::ok_status();
  }
  return lose("no picture came for " + seconds_text(settings_.lost_after));
}

/// The connection is gone, or could not be made. An error ends the video with it.
vlm::Status VideoRun::lose(const std::string& why) {
  const Clock::time_point now = Clock::now();
  backoff_.held(source_->had_picture()
                    ? std::chrono::duration_cast<Backoff::Duration>(source_->age())
                    : Backoff::Duration::zero());
  source_.reset();
  why_lost_ = why;
  if (!lost_since_) {
    lost_since_ = now;
    ++losses_;
  } else {
    progress_.say(input_.source + ": not there: " + why);
  }
  if (gives_up(now)) return given_up(now);
  retry_at_ = now + backoff_.next();
  if (now == *lost_since_) {
    state((reached_ ? "was lost (" : "shows nothing (") + why + "); connecting again");
  }
  return vlm::ok_status();
}

bool VideoRun::gives_up(Clock::time_point now) const {
  return lost_since_ && settings_.give_up_after && now - *lost_since_ >= *settings_.give_up_after;
}

vlm::Error VideoRun::given_up(Clock::time_point now) const {
  return failure(vlm::ErrorKind::kIo, input_.source + " was lost (" + why_lost_ +
                                          ") and given up after " +
                                          seconds_text(now - *lost_since_));
}

vlm::Status VideoRun::connect() {
  progress_.say(input_.source + ": connecting again");
  if (vlm::Status status = make_source(); !status) return status;
  source_->start();
  return vlm::ok_status();
}

void VideoRun::state(const std::string& what) {
  progress_.clear();
  complain(input_.source + " " + what);
}

void VideoRun::say_statistics() const {
  GstStructure* stats = nullptr;
  g_object_get(stage_.describe, "stats", &stats, nullptr);
  if (stats == nullptr) return;
  const auto number = [stats](const char* field) {
    guint64 value = 0;
    gst_structure_get_uint64(stats, field, &value);
    return value;
  };
  const auto ms = [&](const char* field) {
    return std::to_string(number(field) / GST_MSECOND) + " ms";
  };
  std::string line = input_.source + ": " + std::to_string(number("frames")) + " frames, " +
                     std::to_string(number("windows")) +
                     " intervals: " + std::to_string(number("described")) + " described, " +
                     std::to_string(number("passed-over")) + " passed over, " +
                     std::to_string(number("failed")) + " failed; latency " + ms("latency-mean") +
                     " (95 %: " + ms("latency-p95") + ")";
  if (live_) line += "; lost " + std::to_string(losses_) + (losses_ == 1 ? " time" : " times");
  gst_structure_free(stats);
  progress_.say(line);
}

vlm::Status VideoRun::at_end() const {
  if (records_ > 0 || asked_to_end_) return vlm::ok_status();
  return failure(vlm::ErrorKind::kInvalidArgument,
                 cut_done_ ? "there is no picture between --start and --end"
                           : "it holds no picture that could be decoded");
}

vlm::Result<VideoRun::Step> VideoRun::handle(GstMessage* message) {
  vlm::Status status = vlm::ok_status();
  switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_ERROR:
      return handle_error(message);
    case GST_MESSAGE_EOS:
      return Step::kDone;
    case GST_MESSAGE_ASYNC_DONE:
      if (GST_MESSAGE_SRC(message) == GST_OBJECT(stage_.pipeline)) status = handle_prerolled();
      break;
    case GST_MESSAGE_APPLICATION:
      if (!from_current(message)) break;
      if (gst_message_has_name(message, Source::kBlocked)) status = cut();
      if (gst_message_has_name(message, Source::kEnded)) status = lose("it ended");
      break;
    case GST_MESSAGE_ELEMENT:
      reach_.note(message);
      if (GST_MESSAGE_SRC(message) == GST_OBJECT(stage_.describe)) {
        status = take(gst_message_get_structure(message));
      }
      break;
    case GST_MESSAGE_LATENCY:
      gst_bin_recalculate_latency(GST_BIN(stage_.pipeline));
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

/// An error of the source's may be the loss of a source that was there. One of the element's never
/// is, and those of connections that are no more say nothing.
vlm::Result<VideoRun::Step> VideoRun::handle_error(GstMessage* message) {
  GstObject* from = GST_MESSAGE_SRC(message);
  const bool ours = from == GST_OBJECT(stage_.describe) || from == GST_OBJECT(stage_.sink);
  if (!ours && (reached_ || lost_since_) && !from_current(message)) return Step::kGoOn;
  const vlm::Error error = error_of(message);
  const bool was_there = source_ != nullptr && source_->had_picture() && source_->endless();
  if (ours || !live_ || !(was_there || lost_since_)) return error;
  if (asked_to_end_) return Step::kGoOn;
  reached_ |= was_there;
  if (!error.detail.empty()) progress_.say(error.detail);
  if (vlm::Status status = lose(error.message); !status) return status.error();
  return Step::kGoOn;
}

/// What comes without being pushed is ready to play. The output of a source without an end grows.
vlm::Status VideoRun::handle_prerolled() {
  if (begun_) return vlm::ok_status();
  if (wants_part() && !cut_done_) {
    // By the end, or by a gap, with which the sink holds up what is behind it until the seek.
    return source_->ended() ? at_end() : cut();
  }
  gint64 duration = 0;
  if (gst_element_query_duration(stage_.pipeline, GST_FORMAT_TIME, &duration) && duration > 0) {
    duration_ns_ = static_cast<uint64_t>(duration);
  }
  if (settings_.end_ns) duration_ns_ = std::min(duration_ns_, *settings_.end_ns);
  live_ = source_->endless();
  if (vlm::Status status = begin_output(); !status) return status;
  gst_element_set_state(stage_.pipeline, GST_STATE_PLAYING);
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
  std::optional<Record> record = to_record(structure, input_.source, live_);
  if (!record) return vlm::ok_status();
  ++records_;
  if (!begun_) {
    early_.push_back(std::move(*record));
    return vlm::ok_status();
  }
  if (vlm::Status status = receiver_.add(*record); !status) return status;
  progress_.position(input_.source, record->pts_ns + record->duration_ns.value_or(0),
                     live_ ? 0 : duration_ns_);
  return vlm::ok_status();
}

/// Seeks to the wanted part while the video waits in front of the element.
vlm::Status VideoRun::cut() {
  if (std::exchange(cut_done_, true)) return vlm::ok_status();
  source_->let_pass();
  const auto flags = static_cast<GstSeekFlags>(GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE);
  const GstSeekType stop_type = settings_.end_ns ? GST_SEEK_TYPE_SET : GST_SEEK_TYPE_NONE;
  const gint64 stop = settings_.end_ns ? static_cast<gint64>(*settings_.end_ns) : -1;
  if (!gst_element_seek(stage_.pipeline, 1.0, GST_FORMAT_TIME, flags, GST_SEEK_TYPE_SET,
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
  const bool ours = GST_MESSAGE_SRC(message) == GST_OBJECT(stage_.describe);
  const bool had_picture = reached_ || (source_ != nullptr && source_->had_picture());
  if (!ours && !had_picture) result.message = reach_.explain(*error, result.detail);
  g_error_free(error);
  g_free(debug);
  return result;
}

}  // namespace

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
