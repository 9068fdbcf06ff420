// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Windows on their way through the engine: who may wait, who is passed over, in which order results
// come out.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gstvlmpicture.h"
#include "vlm/engine.h"

namespace gstvlm {

/// When something is shown. All in nanoseconds.
struct Times {
  uint64_t pts = 0;  ///< time of buffers
  uint64_t duration = 0;
  uint64_t stream_time = 0;
  uint64_t stream_duration = 0;
  uint64_t running_time = kNoTime;
};

/// What a description is about.
struct Window {
  uint64_t serial = 0;  ///< of the WindowPicker
  uint64_t index = 0;   ///< of all windows; given by the dispatcher
  Times times;
  std::vector<uint64_t> frame_pts;
  std::optional<int64_t> utc_us;  ///< wall clock of the last frame, live sources only
  std::string prompt;
  bool extra = false;  ///< asked for by describe-now, not one of the windows
};

/// A window and what the engine is to do for it. The request gets its frames from `pictures` when
/// the engine is to have it.
struct Job {
  Window window;
  vlm::Request request;
  std::vector<std::shared_ptr<Picture>> pictures;
  int64_t arrival_us = 0;  ///< monotonic_us() of its last frame
  bool partial = false;    ///< report the growing text
  EventPtr instead;        ///< takes its place where a newer one does away with it
};

/// A window that the engine may have now.
struct Work {
  uint64_t token = 0;  ///< names it to the dispatcher
  vlm::Request request;
  std::vector<std::shared_ptr<Picture>> pictures;
};

/// What comes out of the dispatcher, in this order for windows and events.
struct Outcome {
  enum class Kind {
    kResult,   ///< `window` with `result`
    kPartial,  ///< `window` with `text` so far
    kEvent,    ///< `event`, in its place among the windows
    kTick,     ///< the deadline passed, or poke() was called
    kStopped,  ///< nothing will come any more
  };
  Kind kind = Kind::kStopped;
  Window window;
  vlm::Result<vlm::Description> result = vlm::Error{};
  std::string text;
  EventPtr event;
  uint64_t latency_ns = 0;  ///< last frame's arrival to text
  uint64_t epoch = 0;       ///< of the flushes; stale where it is not Dispatcher::epoch()
};

/// How a window fared when it was offered.
enum class Offer {
  kAccepted,
  kPassedOver,  ///< live, and the model is not loaded
  kFlushing,    ///< flush() or stop() came in between
  kFailed,      ///< fail() was called: there will be no engine
};

/// Counts since reset().
struct Counts {
  uint64_t windows = 0;
  uint64_t passed_over = 0;
  uint64_t waiting = 0;  ///< accepted and not finished
};

/// Takes windows from the streaming thread, hands them to the engine by way of a thread that
/// prepares their frames, and gives results back in the order of the windows. Recorded: a window
/// waits for room and is never lost. Live: one window is with the engine, one waits, a newer one
/// takes its place. Thread-safe; take() and next() are each called by one thread only.
class Dispatcher {
 public:
  Dispatcher();
  ~Dispatcher();

  /// Forgets counts and indices, and lets windows in. The engine stays.
  void reset();
  void start();

  /// Cancels everything, wakes everyone who waits; only start() ends this.
  void stop();

  /// Cancels everything, wakes the streaming thread; resume() ends this.
  void flush();
  void resume();

  /// Cancels what is on its way and counts it as passed over.
  void abandon();

  void set_engine(std::shared_ptr<vlm::Engine> engine);
  std::shared_ptr<vlm::Engine> engine() const;

  /// There will be no engine, or a window's failure stopped the element: cancels everything and
  /// refuses more.
  void fail();

  /// Waits until there is an engine.
  Offer wait_engine();

  /// Recorded: waits while `max_pending` windows are on their way. The result is delivered after
  /// close_window() for this window.
  Offer offer_recorded(Job job, unsigned max_pending);

  /// Live: never waits.
  Offer offer_live(Job job);

  /// Besides the windows, at once; delivered as soon as it is finished. One of
  /// them is with the engine at most, and one waits: a newer one takes its place.
  Offer offer_extra(Job job);

  /// The window that next() gave was flushed before it was delivered.
  void count_stale();

  /// Counts windows that are not offered: passed over, or their frames cannot be read. Says as an
  /// offer does whether the stream may go on.
  Offer count_left_out(uint64_t windows, bool broken);

  /// Waits for a window that the engine may have; none after stop(), or where `deadline` came
  /// first.
  std::optional<Work> take(std::optional<Clock::time_point> deadline = std::nullopt);

  /// Hands it to the engine, or ends it with an error. Ignored where it was dropped meanwhile.
  void submit(Work work);
  void fail_window(uint64_t token, vlm::Error error);

  /// The window's final times.
  void close_window(uint64_t serial, const Times& times);

  /// Puts an event in its place behind the windows accepted so far.
  void put_event(EventPtr event);

  /// The same for a time without a text; those that come one behind the other become one.
  void put_gap(uint64_t start, uint64_t duration);

  /// Waits until all has been delivered. kPassedOver where `deadline` came first.
  Offer drain(std::optional<Clock::time_point> deadline);

  /// Waits for the next thing to deliver; what it returned last counts as delivered.
  Outcome next(std::optional<Clock::time_point> deadline);

  /// Makes next() return with kTick.
  void poke();

  Counts counts() const;
  bool failed() const;
  bool idle() const;   ///< no window waits or is with the engine
  bool ready() const;  ///< there is an engine
  uint64_t epoch() const;

 private:
  struct Core;
  struct Slot;
  void drop(bool Core::*state);

  // Shared with the engine's callbacks, which may outlive this object.
  std::shared_ptr<Core> core_;
};

}  // namespace gstvlm
