// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The streaming thread's side of an element: video passes, events are followed.

#include "gstvlmsampler.h"
#include "gstvlmshared.h"
#include "gstvlmsilence.h"

namespace gstvlm {

/// Lets buffers and events from the sink pad through to the src pad, untouched but for the
/// description's meta, and shows them to the sampler. chain() and event() are called by upstream,
/// serialized by the sink pad's stream lock except for what GStreamer lets overtake.
class Stream {
 public:
  Stream(Shared& shared, GstPad* sink, GstPad* src)
      : shared_(shared), sink_(sink), src_(src), sampler_(shared) {}

  /// Before data flows.
  void start();
  /// After it.
  void stop();

  GstFlowReturn chain(BufferPtr buffer);
  bool event(EventPtr event);
  /// Gives all buffers back: upstream is about to change its pool. The streaming thread's.
  void give_back();
  void describe_now() { sampler_.describe_now(); }

 private:
  bool flush_start(EventPtr event);
  bool flush_stop(EventPtr event);
  bool end(EventPtr event);
  bool gap(EventPtr event);
  GstFlowReturn show_nothing(const std::optional<Span>& span);
  GstFlowReturn finish();
  bool segment(EventPtr event);
  bool caps(EventPtr event);
  void tags(GstEvent* event);
  bool forward(EventPtr event);

  GstFlowReturn ensure_mode();
  bool upstream_is_live() const;
  void open_text();
  void put_text_event(EventPtr event);
  std::optional<Moment> place(GstBuffer* buffer);
  uint64_t pts_of(GstBuffer* buffer, uint64_t duration);
  GstFlowReturn look_at(GstBuffer* buffer, const std::optional<Moment>& moment, bool active);
  GstFlowReturn pass(BufferPtr buffer, const std::optional<Moment>& moment);
  GstFlowReturn push(BufferPtr buffer);
  GstFlowReturn release_held();
  void declare_silent(const FrameTime& time);

  Shared& shared_;
  GstPad* const sink_;
  GstPad* const src_;

  // All below belong to the streaming thread.
  Sampler sampler_;
  GstSegment segment_{};
  Look look_{};
  uint64_t next_pts_ = kNoTime;
  Silence silence_;
  bool mode_known_ = false;
  MetaPolicy meta_policy_ = MetaPolicy::kNone;  // from READY on
  EventPtr stream_;                             // upstream's newest stream-start
  EventPtr text_stream_;                        // not yet passed on to the text pad
  EventPtr text_segment_;                       // likewise
};

}  // namespace gstvlm
