// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What GAP events of a recording say, until frames bear them out: pure arithmetic.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

namespace gstvlm {

/// Stream time.
struct Span {
  uint64_t start_ns = 0;
  uint64_t end_ns = 0;

  bool operator==(const Span&) const = default;
};

/// Demuxers send gaps for video that lags behind the sound, and decoders let them overtake the
/// pictures that they still hold, so that only the next frame, or the end, tells how much of a gap
/// is true. Thread-bound.
class Silence {
 public:
  /// No decoder holds back what lies so much further back than the newest gap.
  static constexpr uint64_t kMostHeld = 60'000'000'000;

  /// Nothing is shown there, as it seems. Returns what of all of it is true whatever comes.
  std::optional<Span> add(Span span) {
    if (span_) {
      span = {std::min(span_->start_ns, span.start_ns), std::max(span_->end_ns, span.end_ns)};
    }
    span_ = span;
    if (span.end_ns - span.start_ns <= kMostHeld) {
      return std::nullopt;
    }
    return trimmed(before(span.end_ns - kMostHeld));
  }

  /// A frame came, which is shown from `start_ns` on, for `duration_ns` as it says, or UINT64_MAX.
  /// Returns what it bears out: what lies before it, unless that is no longer than the frame before
  /// it (times are rounded, and a single lost frame is no hole). What lies behind it waits on.
  std::optional<Span> frame(uint64_t start_ns, uint64_t duration_ns) {
    std::optional<Span> silent = trimmed(before(start_ns));
    if (silent && start_ns - shown_.end_ns <= shown_.end_ns - shown_.start_ns) {
      silent.reset();
    }
    const uint64_t length = duration_ns == UINT64_MAX ? 0 : duration_ns;
    shown_ = {start_ns, start_ns + std::min(length, UINT64_MAX - start_ns)};
    span_ = trimmed(span_);
    return silent;
  }

  /// Nothing more comes: all that is left.
  std::optional<Span> end() { return trimmed(before(UINT64_MAX)); }

  void clear() { *this = {}; }

 private:
  std::optional<Span> before(uint64_t time) {
    if (!span_) {
      return std::nullopt;
    }
    const Span all = *std::exchange(span_, std::nullopt);
    if (time < all.end_ns) {
      span_ = {std::max(time, all.start_ns), all.end_ns};
    }
    if (time <= all.start_ns) {
      return std::nullopt;
    }
    return Span{all.start_ns, std::min(time, all.end_ns)};
  }

  // Without what the newest frame claims.
  std::optional<Span> trimmed(const std::optional<Span>& span) const {
    if (!span || span->start_ns >= shown_.end_ns) {
      return span;
    }
    return span->end_ns > shown_.end_ns ? std::optional(Span{shown_.end_ns, span->end_ns})
                                        : std::nullopt;
  }

  std::optional<Span> span_;
  Span shown_;  // the newest frame
};

}  // namespace gstvlm
