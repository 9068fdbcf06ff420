// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What the dispatcher keeps: the queue of windows and events, and which of them is next for whom.

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "gstvlmdispatch.h"

namespace gstvlm {

struct Dispatcher::Slot {
  enum class Phase { kWaiting, kWithEngine, kDone, kEvent };
  uint64_t token = 0;  // never used twice
  Phase phase = Phase::kWaiting;
  Job job;
  EventPtr event;
  bool closed = false;  // times are final
  bool taken = false;   // the engine has it, or take() gave it out
  std::optional<vlm::RequestId> request;
  std::string text;
  bool text_is_new = false;
  std::optional<vlm::Result<vlm::Description>> result;
  int64_t done_us = 0;
};

// Guards nothing but the fields here: no call to the engine, to GStreamer or to a callback happens
// while `mutex` is held.
struct Dispatcher::Core {
  mutable Mutex mutex;
  // Each has one thread that waits, so that none is woken for what is another's.
  CondVar work;    // take(): something may have become due for the engine
  CondVar output;  // next(): something may be ready to be delivered
  CondVar room;    // the streaming thread: there may be an engine, or fewer windows on their way
  std::deque<Slot> slots GSTVLM_GUARDED_BY(mutex);
  bool stopped GSTVLM_GUARDED_BY(mutex) = true;
  bool flushing GSTVLM_GUARDED_BY(mutex) = false;
  bool failed GSTVLM_GUARDED_BY(mutex) = false;
  bool delivering GSTVLM_GUARDED_BY(mutex) = false;
  bool poked GSTVLM_GUARDED_BY(mutex) = false;
  uint64_t epoch GSTVLM_GUARDED_BY(mutex) = 0;
  uint64_t next_token GSTVLM_GUARDED_BY(mutex) = 1;
  uint64_t windows GSTVLM_GUARDED_BY(mutex) = 0;
  uint64_t passed_over GSTVLM_GUARDED_BY(mutex) = 0;
  // Emptied with the dispatcher, so that no callback can be the engine's last owner.
  std::shared_ptr<vlm::Engine> engine GSTVLM_GUARDED_BY(mutex);

  Slot* find(uint64_t token) GSTVLM_REQUIRES(mutex);

  // Windows alone, without what describe-now asked for.
  size_t count(Slot::Phase phase) const GSTVLM_REQUIRES(mutex);
  size_t unfinished() const GSTVLM_REQUIRES(mutex) {
    return count(Slot::Phase::kWaiting) + count(Slot::Phase::kWithEngine);
  }
  // Windows on their way until they are delivered: whoever is slow to take results holds up more.
  size_t pending() const GSTVLM_REQUIRES(mutex) { return unfinished() + count(Slot::Phase::kDone); }

  std::optional<Offer> refusal() const GSTVLM_REQUIRES(mutex);
  void push(Job job, Slot::Phase phase, bool closed) GSTVLM_REQUIRES(mutex);
  Offer add(Job job, Slot::Phase phase, bool closed) GSTVLM_REQUIRES(mutex);
  void put(EventPtr event) GSTVLM_REQUIRES(mutex);

  // Empties the queue and wakes everyone. Returns what the engine is to cancel.
  std::vector<vlm::RequestId> drop_all() GSTVLM_REQUIRES(mutex);

  // The first window that the engine is to have, or the one that waits where it has become free.
  Slot* next_to_take() GSTVLM_REQUIRES(mutex);

  bool take_partial(Outcome& outcome) GSTVLM_REQUIRES(mutex);
  // The first window or event where it is ready; descriptions besides the windows at any place.
  bool take_done(Outcome& outcome) GSTVLM_REQUIRES(mutex);

  // Run on the engine's thread.
  void finish(uint64_t token, vlm::Result<vlm::Description> result) GSTVLM_EXCLUDES(mutex);
  void grow(uint64_t token, const std::string& text) GSTVLM_EXCLUDES(mutex);

  void notify_everyone() {
    work.notify_all();
    output.notify_all();
    room.notify_all();
  }
};

}  // namespace gstvlm
