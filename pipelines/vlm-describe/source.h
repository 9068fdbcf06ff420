// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <atomic>
#include <chrono>
#include <mutex>

#include "inputs.h"

namespace describe {

/// What a source feeds; owned by the pipeline.
struct Stage {
  GstElement* pipeline = nullptr;
  GstElement* describe = nullptr;  ///< vlmdescribe
  GstElement* sink = nullptr;
};

/// One connection to what a URI names, decoded, in front of vlmdescribe. It may be taken out of a
/// pipeline that plays and replaced by another one. Thread-bound, but for what the streaming
/// threads do inside.
class Source {
 public:
  /// Names of the application messages that it posts.
  static constexpr const char* kBlocked = "vlm-describe-blocked";  ///< waits for let_pass()
  static constexpr const char* kEnded = "vlm-describe-ended";      ///< a source without an end did

  /// `hold`: the first picture is held back until let_pass().
  Source(const Input& input, const Stage& stage, bool hold);
  /// Stops it and takes it out of the pipeline.
  ~Source();
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  /// False where GStreamer's basic elements are missing.
  bool made() const { return bin_ != nullptr; }
  /// Begins, in a pipeline that plays already. A failure comes as an error message.
  void start();
  /// What is held back goes on.
  void let_pass() { hold_ = false; }
  /// Nothing more comes from it; what waits for its time is let go.
  void silence();

  /// Whether a message's source is part of it.
  bool owns(GstObject* object) const;
  /// Known once there was a picture: neither a file nor of known length.
  bool endless() const { return endless_; }
  /// Whether video was found in it.
  bool has_video() const { return have_video_; }
  bool had_picture() const { return pictures_ > 0; }
  /// Whether its end has come.
  bool ended() const { return ended_; }
  /// Since the newest picture, or since it was made; none while a picture waits for its time.
  std::chrono::microseconds silence_lasts() const;
  /// Since it was made.
  std::chrono::microseconds age() const;

 private:
  static void on_pad_added(GstElement* bin, GstPad* pad, gpointer self);
  static void on_element_added(GstBin* bin, GstBin* sub_bin, GstElement* element, gpointer self);
  static void on_no_more_pads(GstElement* bin, gpointer self);
  static GstPadProbeReturn on_held(GstPad* pad, GstPadProbeInfo* info, gpointer self);
  static GstPadProbeReturn on_data(GstPad* pad, GstPadProbeInfo* info, gpointer self);

  void look_at(GstPad* pad);
  void pace(GstBuffer* buffer);
  void take_time_from_clock(GstPadProbeInfo* info);
  bool is_endless(GstPad* pad) const;
  void post(const char* name);

  const Input& input_;
  const Stage stage_;
  GstElement* bin_ = nullptr;
  const int64_t made_us_;

  // Shared with the streaming threads.
  std::atomic<bool> hold_;
  std::atomic<bool> silent_ = false;
  std::atomic<bool> have_video_ = false;
  std::atomic<bool> playlist_ = false;  // HLS, DASH …
  std::atomic<bool> camera_ = false;    // pictures one after the other by HTTP
  std::atomic<bool> endless_ = false;
  std::atomic<bool> end_is_loss_ = false;
  std::atomic<bool> ended_ = false;
  std::atomic<bool> paced_ = false;         // pictures wait here for their time
  std::atomic<GstClockTime> began_at_ = 0;  // running time that its own times are shifted by
  std::atomic<uint64_t> pictures_ = 0;
  std::atomic<int64_t> newest_us_;
  GstSegment segment_{};  // the streaming thread's
  mutable std::mutex waiting_mutex_;
  GstClockID waiting_ = nullptr;  // guarded; what the streaming thread waits for
};

}  // namespace describe
