// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The request pad `text`: sparse, timed, pushed by a task of its own so that neither the video nor
// the model ever waits for what is behind it.

#include <deque>
#include <string>

#include "gstvlm-utils.h"

namespace gstvlm {

/// What goes out on the text pad, and the pad itself where one was requested. Without a pad only
/// the stream's events are remembered, for one that comes later. Thread-safe.
class TextOutput {
 public:
  /// `element` owns this object.
  explicit TextOutput(GstElement* element) : element_(element) {}

  /// Makes the pad and adds it to the element; null where there is one already.
  GstPad* attach(GstPadTemplate* templ, GstPadQueryFunction query, GstPadEventFunction event);

  /// Deactivates and removes the pad. Does not wait for a branch that blocks.
  void detach(GstPad* pad);

  /// The stream whose texts follow: of upstream's stream-start event, with a sparse flag. Each goes
  /// out once, and again where the pad has ended since; to be repeated after a flush, which may
  /// have dropped it.
  void put_stream(GstEvent* upstream_start);
  void put_segment(EventPtr segment);
  /// Any other event; those that end a stream stay behind all texts.
  void put_event(EventPtr event);

  /// One text with its times in the current segment; `structure` becomes the buffer's meta. Where
  /// `fill` is set, what lies between the text before and this one is declared empty first.
  void put_text(const GstStructure* structure, uint64_t pts, uint64_t duration, bool fill);

  /// Nothing is said in this time.
  void put_gap(uint64_t pts, uint64_t duration);

  /// The events are forwarded here; what is queued is dropped.
  void flush_start(GstEvent* event);
  void flush_stop(GstEvent* event);

  /// Forgets the stream, as when the element stops.
  void reset();

  /// What the last push returned; GST_FLOW_NOT_LINKED where there is no linked pad.
  GstFlowReturn flow() const;

 private:
  using ItemPtr = std::unique_ptr<GstMiniObject, void (*)(GstMiniObject*)>;

  static gboolean activate_mode(GstPad* pad, GstObject* parent, GstPadMode mode, gboolean active);
  static void loop(gpointer pad);
  void start(GstPad* pad, bool opening);
  void stop(GstPad* pad);
  void push_next(GstPad* pad);
  ItemPtr next(GstPad* pad);
  void handle(GstPad* pad, GstFlowReturn flow);
  void drop_stream() GSTVLM_REQUIRES(mutex_);
  PadPtr pad() const;
  void put(ItemPtr item) GSTVLM_REQUIRES(mutex_);
  void put(EventPtr event) GSTVLM_REQUIRES(mutex_);
  void put_gap_locked(uint64_t pts, uint64_t duration) GSTVLM_REQUIRES(mutex_);
  void put_opening() GSTVLM_REQUIRES(mutex_);

  GstElement* const element_;
  mutable Mutex mutex_;
  CondVar changed_;
  PadPtr pad_ GSTVLM_GUARDED_BY(mutex_);
  GstPad* pushing_ GSTVLM_GUARDED_BY(mutex_) = nullptr;  // whose thread is in the branch
  std::deque<ItemPtr> queue_ GSTVLM_GUARDED_BY(mutex_);
  bool flushing_ GSTVLM_GUARDED_BY(mutex_) = true;
  GstFlowReturn flow_ GSTVLM_GUARDED_BY(mutex_) = GST_FLOW_OK;
  // Nothing is taken before a flush or another stream: this one has ended, or the branch has.
  bool closed_ GSTVLM_GUARDED_BY(mutex_) = false;
  EventPtr stream_start_ GSTVLM_GUARDED_BY(mutex_);
  EventPtr segment_ GSTVLM_GUARDED_BY(mutex_);
  uint64_t position_ GSTVLM_GUARDED_BY(mutex_) = kNoTime;  // end of the newest text or gap
};

}  // namespace gstvlm
