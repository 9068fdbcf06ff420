// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Video that waits for its description (meta-policy=exact).

#include <deque>
#include <map>

#include "gstvlm-utils.h"

namespace gstvlm {

/// Buffers and events in their order, released when the description of a buffer's window is there.
/// Upstream is asked for the buffers that this takes; of a pool that has no more of them, copies
/// are held, so that upstream never runs dry. add(), wait() and take() are called by the streaming
/// thread, the others by any.
class HeldVideo {
 public:
  /// What may go out now: a buffer with its meta attached, an event, or neither.
  struct Item {
    BufferPtr buffer;
    EventPtr event;
  };

  /// For a new stream; `holding`: buffers will be added (meta-policy=exact). Else resolve() keeps
  /// nothing.
  void start(bool holding);

  /// Adds `more` buffers to what an answered allocation query asks of the pool, or of a pool of
  /// upstream's own where it names none.
  void ask(GstQuery* allocation, unsigned more);

  /// Holds a buffer until the window `serial` is resolved; kNoTime: it only keeps its place.
  void add(BufferPtr buffer, uint64_t serial);
  void add(EventPtr event);

  /// Replaces buffers of pools by copies.
  void give_back();

  /// The description of a window, or null where there will be none.
  void resolve(uint64_t serial, const GstStructure* structure);

  /// Nothing more is to be waited for.
  void resolve_all();

  /// What comes next, if it need not wait.
  Item take();

  /// Waits until take() has something; false after flush().
  bool wait();

  /// Drops everything and wakes wait(); resume() ends this.
  void flush();
  void resume();

  bool empty() const;
  uint64_t bytes() const;
  /// Window of the first buffer that waits; kNoTime where there is none.
  uint64_t front_serial() const;

 private:
  struct Entry {
    Item item;
    uint64_t serial = kNoTime;
    uint64_t bytes = 0;
    bool borrowed = false;  // of a pool that has only so many
  };

  bool ready() const GSTVLM_REQUIRES(mutex_);
  bool may_borrow(unsigned spare, unsigned minimum) const GSTVLM_REQUIRES(mutex_);

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Entry> entries_ GSTVLM_GUARDED_BY(mutex_);
  std::map<uint64_t, StructurePtr> resolved_ GSTVLM_GUARDED_BY(mutex_);
  uint64_t bytes_ GSTVLM_GUARDED_BY(mutex_) = 0;
  unsigned borrowed_ GSTVLM_GUARDED_BY(mutex_) = 0;
  unsigned asked_ GSTVLM_GUARDED_BY(mutex_) = 0;          // buffers of a pool ...
  unsigned asked_minimum_ GSTVLM_GUARDED_BY(mutex_) = 0;  // ... that was set up with these
  bool holding_ GSTVLM_GUARDED_BY(mutex_) = false;
  bool flushing_ GSTVLM_GUARDED_BY(mutex_) = false;
  bool all_ GSTVLM_GUARDED_BY(mutex_) = false;
};

/// How many more buffers exact metadata takes, for video of `caps`: those of the window that is
/// being filled and of the one before it, which is being described; no more than `most_bytes` of
/// them. Reentrant.
unsigned buffers_to_hold(GstCaps* caps, uint64_t interval_ns, unsigned max_pending,
                         uint64_t most_bytes);

}  // namespace gstvlm
