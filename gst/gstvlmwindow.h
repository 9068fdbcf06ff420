// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Which frames are described: pure arithmetic on stream time, no GStreamer in it.

#include <cstdint>
#include <vector>

namespace gstvlm {

/// How stream time is cut. With `interval_ns` 0 every frame is a window of its own and `frames`
/// must be 1.
struct WindowRule {
  uint64_t interval_ns = 0;
  unsigned frames = 1;
  bool newest_wins = false;  ///< of many windows in which no frame starts only the last ones count

  bool operator==(const WindowRule&) const = default;
};

/// When a frame is shown; UINT64_MAX in `duration_ns` where that is not known.
struct FrameTime {
  uint64_t start_ns = 0;  ///< stream time
  uint64_t duration_ns = UINT64_MAX;
  bool backwards = false;  ///< of a segment with a negative rate
};

/// One thing to do for a window, in the order given.
struct Step {
  enum class Kind {
    kOpen,     ///< a window begins; prompt and options are those of this moment
    kUseLast,  ///< take the frame seen before this one, `count` times
    kUseThis,  ///< take this frame, `count` times
    kSubmit,   ///< all frames are there: describe
    kClose,    ///< the window has ended; start and end are final
    kPass,     ///< `windows` of them come to nothing, with none open
  };
  Kind kind = Kind::kOpen;
  uint64_t serial = 0;    ///< of the window; every opened window has the next one
  unsigned count = 0;     ///< of frames
  uint64_t windows = 0;   ///< that are passed over
  uint64_t start_ns = 0;  ///< stream time the window covers, as far as is known now
  uint64_t end_ns = 0;
};

/// Steps for one call. Where `more` is set there are further ones: repeat the call.
struct Steps {
  std::vector<Step> list;
  bool more = false;
};

/// Cuts a stream into windows and says which frame goes where.
///
/// Window k covers stream time [k·interval, (k+1)·interval), clipped to what the stream holds.
/// Frame i of it is the first at or after start + (i+½)·interval/frames, else the last one seen
/// before the window ends. A window is submitted as soon as its frames are there and closed when
/// the stream leaves it. A window in which no frame starts is described only where the frame before
/// it is still shown at the window's first sampling point; where the newest wins and there are more
/// than 64 of them, those before the last 64 are passed over in one step. Played backwards, the
/// same holds mirrored: sampling points count from the window's end, and windows without a frame of
/// their own are left out.
///
/// Not thread-safe.
class WindowPicker {
 public:
  /// Holds from the next window on.
  void set_rule(WindowRule rule) { rule_ = rule; }

  /// A frame has arrived.
  Steps frame(const FrameTime& time);

  /// Nothing is shown in [start_ns, end_ns), but for what the last frame says of itself.
  Steps gap(uint64_t start_ns, uint64_t end_ns);

  /// The stream ends here: what is open is filled with the last frame, submitted and closed.
  Steps finish();

  /// Nobody wants windows for now: the open one is closed if it was submitted and forgotten if not.
  Steps interrupt();

  /// Forgets the open window and the last frame, as after a flush.
  void reset();

  /// Whether a later step may ask for the frame seen last.
  bool needs_last() const;

  /// The open window's serial, or UINT64_MAX.
  uint64_t open_serial() const { return open_ ? window_.serial : UINT64_MAX; }

 private:
  struct Window {
    uint64_t serial = 0;
    uint64_t nominal_start = 0, nominal_end = 0;
    uint64_t start = 0, end = 0;
    WindowRule rule;
    bool backwards = false;
    unsigned filled = 0;
    bool submitted = false;
  };

  void open(const FrameTime& time, bool contiguous, Steps& steps);
  void open_forward(uint64_t nominal_start, uint64_t start, Steps& steps);
  void take(Step::Kind kind, unsigned count, Steps& steps);
  void close(Steps& steps);
  void leave(uint64_t held_until, bool stream_goes_on, Steps& steps);
  bool fill_shown(uint64_t shown_until, uint64_t before, Steps& steps);
  void pass_over(uint64_t windows, uint64_t until, Steps& steps);
  void every_frame(const FrameTime& time, Steps& steps);
  unsigned reached(uint64_t time) const;
  bool inside(const FrameTime& time) const;
  bool follows(const FrameTime& time) const;
  uint64_t last_end() const;
  Step step(Step::Kind kind, unsigned count = 0) const;

  WindowRule rule_;
  Window window_;
  bool open_ = false;
  uint64_t next_serial_ = 0;
  FrameTime last_;
  bool have_last_ = false;
  uint64_t spacing_ = 0;        ///< between the last two frames
  uint64_t covered_until_ = 0;  ///< forward: end of the newest closed window
};

}  // namespace gstvlm
