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
  /// Nothing is shown there, as it seems.
  void add(Span span) {
    if (span_) {
      span = {std::min(span_->start_ns, span.start_ns), std::max(span_->end_ns, span.end_ns)};
    }
    span_ = span;
  }

  /// What of it a frame at `time` bears out: the part before it. The part behind it waits for the
  /// next frame; UINT64_MAX for the end of all.
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

  void clear() { span_.reset(); }

 private:
  std::optional<Span> span_;
};

}  // namespace gstvlm
