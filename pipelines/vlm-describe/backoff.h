// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <chrono>

namespace describe {

/// How long to wait before each attempt to reach a source again: 1 s, then twice as long each time,
/// at most 30 s. Thread-bound.
class Backoff {
 public:
  using Duration = std::chrono::milliseconds;

  static constexpr Duration kFirst = std::chrono::seconds(1);
  static constexpr Duration kLongest = std::chrono::seconds(30);

  /// The wait before the next attempt.
  Duration next() {
    const Duration wait = next_;
    next_ = std::min(2 * next_, kLongest);
    return wait;
  }

  /// A connection ended that had held for `time`. One that came to nothing soon does not begin
  /// anew, so that a source that comes and goes is not asked every second.
  void held(Duration time) {
    if (time >= kLongest) next_ = kFirst;
  }

 private:
  Duration next_ = kFirst;
};

}  // namespace describe
