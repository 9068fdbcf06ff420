// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <span>

namespace vlm {

/// The longest cycle, in tokens, that counts as a loop.
inline constexpr int64_t kLongestLoop = 256;
/// A loop spans at least as many tokens: short cycles must come more often than asked, so that
/// "0000", "very, very, very" and rows of dots are none.
inline constexpr int64_t kShortestLoopSpan = 16;

/// How much of the end of a text is one cycle over and over.
struct Loop {
  int64_t period = 0;   ///< tokens of the cycle; 0: no loop
  int64_t repeats = 0;  ///< how often it is there

  /// Tokens behind the first time.
  int64_t surplus() const { return period * (repeats - 1); }
};

/// The shortest cycle that `ids` ends with at least `repeats` times without a gap, and at least
/// kShortestLoopSpan tokens long altogether; its repeats are all that there are. No loop where
/// `repeats` is below 2. Ids must be the same, so an enumeration whose numbers or words change is
/// none. Reentrant.
Loop find_loop(std::span<const int64_t> ids, int64_t repeats);

}  // namespace vlm
