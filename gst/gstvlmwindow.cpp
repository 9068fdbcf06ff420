// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmwindow.h"

#include <algorithm>

namespace gstvlm {
namespace {

constexpr uint64_t kUnknown = UINT64_MAX;
constexpr size_t kStepsAtOnce = 256;
constexpr uint64_t kMostShown = 64;  // windows in which no frame starts, where the newest wins

uint64_t plus(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t minus(uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

// (index + ½) · interval / frames without overflow.
uint64_t sampling_offset(const WindowRule& rule, unsigned index) {
  const uint64_t parts = 2 * uint64_t{rule.frames};
  const uint64_t odd = 2 * uint64_t{index} + 1;
  return rule.interval_ns / parts * odd + rule.interval_ns % parts * odd / parts;
}

}  // namespace

Steps WindowPicker::frame(const FrameTime& time) {
  Steps steps;
  if (open_ && window_.rule.interval_ns == 0 && rule_.interval_ns != 0) {
    close(steps);
  }
  if (rule_.interval_ns == 0 && (!open_ || window_.rule.interval_ns == 0)) {
    every_frame(time, steps);
    return steps;
  }
  const bool contiguous = have_last_ && follows(time);
  if (!open_ || !inside(time)) {
    const bool ahead =
        have_last_ && !time.backwards && !last_.backwards && time.start_ns >= last_.start_ns;
    if (open_) {
      leave(contiguous ? kUnknown : last_end(), contiguous, steps);
    }
    if (rule_.interval_ns == 0) {
      every_frame(time, steps);
      return steps;
    }
    if (ahead) {
      const uint64_t shown_until = contiguous ? time.start_ns : last_end();
      if (!fill_shown(shown_until, time.start_ns, steps)) {
        steps.more = true;
        return steps;
      }
    }
    open(time, contiguous, steps);
  }
  take(Step::Kind::kUseThis, reached(time.start_ns), steps);
  if (have_last_) {
    spacing_ = time.start_ns > last_.start_ns ? time.start_ns - last_.start_ns
                                              : last_.start_ns - time.start_ns;
  }
  last_ = time;
  have_last_ = true;
  return steps;
}

Steps WindowPicker::gap(uint64_t start_ns, uint64_t end_ns) {
  Steps steps;
  if (!have_last_) {
    return steps;
  }
  if (last_.backwards) {
    if (open_ && start_ns <= window_.nominal_start) {
      leave(kUnknown, false, steps);
      have_last_ = false;
    }
    return steps;
  }
  // What the frame says of itself counts for more.
  if (last_.duration_ns == kUnknown) {
    if (start_ns <= last_.start_ns) {
      return steps;
    }
    last_.duration_ns = start_ns - last_.start_ns;
  } else if (start_ns < last_end() && end_ns <= last_end()) {
    return steps;
  }
  if (open_ && end_ns < window_.nominal_end) {
    return steps;
  }
  return finish();
}

Steps WindowPicker::finish() {
  Steps steps;
  if (open_) {
    leave(last_.backwards ? kUnknown : last_end(), false, steps);
  }
  if (have_last_ && !last_.backwards && last_.duration_ns != kUnknown &&
      !fill_shown(last_end(), kUnknown, steps)) {
    steps.more = true;
    return steps;
  }
  have_last_ = false;
  return steps;
}

Steps WindowPicker::interrupt() {
  Steps steps;
  if (open_ && window_.submitted) {
    leave(last_.backwards ? kUnknown : last_end(), false, steps);
  }
  reset();
  return steps;
}

void WindowPicker::reset() {
  open_ = false;
  have_last_ = false;
  covered_until_ = 0;
}

bool WindowPicker::needs_last() const {
  if (!open_ || window_.rule.interval_ns == 0) {
    return false;
  }
  if (!window_.submitted) {
    return true;
  }
  return !last_.backwards && (last_.duration_ns == kUnknown ||
                              last_end() > plus(window_.nominal_end, sampling_offset(rule_, 0)));
}

void WindowPicker::every_frame(const FrameTime& time, Steps& steps) {
  if (open_) {
    window_.end = std::max(window_.start, time.start_ns);
    close(steps);
  }
  if (have_last_ && time.start_ns > last_.start_ns) {
    spacing_ = time.start_ns - last_.start_ns;
  }
  const bool known = time.duration_ns != kUnknown;
  window_ = Window{};
  window_.serial = next_serial_++;
  window_.rule = rule_;
  window_.backwards = time.backwards;
  window_.start = time.start_ns;
  window_.end = plus(time.start_ns, known ? time.duration_ns : spacing_);
  window_.nominal_start = window_.start;
  window_.nominal_end = window_.end;
  open_ = true;
  last_ = time;
  have_last_ = true;
  steps.list.push_back(step(Step::Kind::kOpen));
  take(Step::Kind::kUseThis, rule_.frames, steps);
  if (known) {
    close(steps);
    // The next frame may start a rule with an interval; nothing of this frame belongs to it.
    have_last_ = false;
  }
}

void WindowPicker::open(const FrameTime& time, bool contiguous, Steps& steps) {
  const uint64_t nominal_start = time.start_ns / rule_.interval_ns * rule_.interval_ns;
  if (!time.backwards) {
    const bool held = contiguous || (have_last_ && !last_.backwards &&
                                     time.start_ns >= last_.start_ns && last_end() > nominal_start);
    const uint64_t covered = covered_until_ <= time.start_ns ? covered_until_ : 0;
    open_forward(nominal_start, std::max(held ? nominal_start : time.start_ns, covered), steps);
    return;
  }
  const uint64_t nominal_end = plus(nominal_start, rule_.interval_ns);
  const uint64_t shown = time.duration_ns == kUnknown ? spacing_ : time.duration_ns;
  window_ = Window{};
  window_.serial = next_serial_++;
  window_.rule = rule_;
  window_.backwards = true;
  window_.nominal_start = window_.start = nominal_start;
  window_.nominal_end = nominal_end;
  window_.end = contiguous ? nominal_end : std::min(nominal_end, plus(time.start_ns, shown));
  open_ = true;
  steps.list.push_back(step(Step::Kind::kOpen));
}

void WindowPicker::open_forward(uint64_t nominal_start, uint64_t start, Steps& steps) {
  window_ = Window{};
  window_.serial = next_serial_++;
  window_.rule = rule_;
  window_.nominal_start = nominal_start;
  window_.start = start;
  window_.nominal_end = window_.end = plus(nominal_start, rule_.interval_ns);
  open_ = true;
  steps.list.push_back(step(Step::Kind::kOpen));
}

void WindowPicker::take(Step::Kind kind, unsigned count, Steps& steps) {
  count = std::min(count, window_.rule.frames - window_.filled);
  if (count == 0) {
    return;
  }
  window_.filled += count;
  steps.list.push_back(step(kind, count));
  if (window_.filled == window_.rule.frames) {
    window_.submitted = true;
    steps.list.push_back(step(Step::Kind::kSubmit));
  }
}

void WindowPicker::close(Steps& steps) {
  if (!window_.submitted) {
    take(Step::Kind::kUseLast, window_.rule.frames - window_.filled, steps);
  }
  steps.list.push_back(step(Step::Kind::kClose));
  open_ = false;
  covered_until_ = window_.backwards ? 0 : window_.end;
}

// Ends the open window; it covers no more than [.., held_until), or played backwards no more than
// what was seen unless the stream goes on.
void WindowPicker::leave(uint64_t held_until, bool stream_goes_on, Steps& steps) {
  if (window_.rule.interval_ns != 0) {
    if (!window_.backwards) {
      window_.end = std::max(window_.start, std::min(window_.nominal_end, held_until));
    } else if (!stream_goes_on) {
      window_.start = std::min(last_.start_ns, window_.end);
    }
  }
  close(steps);
}

// Windows in which no frame starts, while the last one is still shown. False where the rest has to
// wait for the next call.
bool WindowPicker::fill_shown(uint64_t shown_until, uint64_t before, Steps& steps) {
  const uint64_t interval = rule_.interval_ns;
  if (interval == 0 || covered_until_ < last_.start_ns) {
    return true;
  }
  // Of window k the first sampling point must be shown, and its end lie before `before`.
  const uint64_t offset = sampling_offset(rule_, 0);
  const uint64_t shown = shown_until > offset ? (shown_until - offset - 1) / interval + 1 : 0;
  const uint64_t stop = std::min(shown, std::min(before, UINT64_MAX - 1) / interval);
  // The rest of a window that was closed early is not another one.
  uint64_t k = covered_until_ / interval;
  k += covered_until_ % interval > offset ? 1 : 0;
  if (rule_.newest_wins && stop > k && stop - k > kMostShown) {
    pass_over(stop - k - kMostShown, (stop - kMostShown) * interval, steps);
    k = stop - kMostShown;
  }
  for (; k < stop; ++k) {
    if (steps.list.size() >= kStepsAtOnce) {
      return false;
    }
    open_forward(k * interval, std::max(covered_until_, k * interval), steps);
    window_.end = std::min(window_.nominal_end, shown_until);
    close(steps);
  }
  return true;
}

void WindowPicker::pass_over(uint64_t windows, uint64_t until, Steps& steps) {
  steps.list.push_back({Step::Kind::kPass, next_serial_, 0, windows, covered_until_, until});
  covered_until_ = until;
}

// How many sampling points not yet filled lie at or before `time`.
unsigned WindowPicker::reached(uint64_t time) const {
  const uint64_t into =
      window_.backwards ? minus(window_.nominal_end, time) : minus(time, window_.nominal_start);
  unsigned count = window_.filled;
  while (count < window_.rule.frames && sampling_offset(window_.rule, count) <= into) {
    ++count;
  }
  return count - window_.filled;
}

// A frame that comes a little late, out of order, still counts as the open window's.
bool WindowPicker::inside(const FrameTime& time) const {
  if (time.backwards != window_.backwards) {
    return false;
  }
  const uint64_t late = std::max(last_.duration_ns == kUnknown ? 0 : last_.duration_ns, spacing_);
  if (window_.backwards) {
    return time.start_ns >= window_.nominal_start && time.start_ns < plus(window_.end, late);
  }
  return time.start_ns < window_.nominal_end && plus(time.start_ns, late) >= window_.start;
}

// Whether the frame follows the last one without a hole. One frame's length is no hole: durations
// are often rounded, and a single dropped frame does not end a scene.
bool WindowPicker::follows(const FrameTime& time) const {
  if (time.backwards != last_.backwards) {
    return false;
  }
  if (time.backwards) {
    const uint64_t shown = time.duration_ns == kUnknown ? spacing_ : time.duration_ns;
    return time.start_ns <= last_.start_ns &&
           minus(last_.start_ns, plus(time.start_ns, shown)) <= shown;
  }
  if (time.start_ns < last_.start_ns) {
    return false;
  }
  return last_.duration_ns == kUnknown ||
         minus(time.start_ns, last_end()) <= std::max(last_.duration_ns, uint64_t{1});
}

// When the last frame is no longer shown, as far as is known without the next one: a picture alone
// stays as long as a window does.
uint64_t WindowPicker::last_end() const {
  const uint64_t likely = spacing_ != 0 ? spacing_ : rule_.interval_ns;
  return plus(last_.start_ns, last_.duration_ns == kUnknown ? likely : last_.duration_ns);
}

Step WindowPicker::step(Step::Kind kind, unsigned count) const {
  return Step{kind, window_.serial, count, 0, window_.start, window_.end};
}

}  // namespace gstvlm
