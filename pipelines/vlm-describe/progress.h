// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

namespace describe {

/// A line on standard error that shows how far the work is, where that is a terminal; nothing
/// elsewhere. Thread-safe.
class Progress {
 public:
  enum class Level { kQuiet, kNormal, kVerbose };

  explicit Progress(Level level);
  ~Progress();

  /// Begins something new, such as "loading demo-model" or a source's name.
  void begin(const std::string& what);
  /// `fraction` of it is done, in [0, 1].
  void fraction(double fraction);
  /// Video: `position_ns` of `duration_ns` (0: unknown, a live source) of `what` is described.
  /// Several live sources share the line: it shows the newest.
  void position(const std::string& what, uint64_t position_ns, uint64_t duration_ns);
  /// Takes the line away, for output on the same terminal or at the end.
  void clear();
  /// With --verbose: a line that stays.
  void say(const std::string& line);

  bool shown() const { return shown_; }

 private:
  using Clock = std::chrono::steady_clock;
  void draw(const std::string& text, bool force);

  const bool shown_;
  const bool verbose_;
  std::mutex mutex_;
  std::string what_;
  Clock::time_point began_;
  Clock::time_point drawn_;
  std::optional<uint64_t> first_position_ns_;
  bool visible_ = false;
};

/// "12:03" or "1:02:03". Reentrant.
std::string short_time(double seconds);

}  // namespace describe
