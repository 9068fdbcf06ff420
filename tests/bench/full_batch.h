// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace bench {

/// One of several texts that are written at once.
struct TextRun {
  int64_t tokens = 0;      ///< that it had when it ended
  double decode_s = 0;     ///< from its first token to its last
  bool cancelled = false;  ///< it ended because somebody ended it
};

/// Seconds for each token of a batch while all of its texts are written: the time in which the one
/// that started last wrote its later tokens, during which each of the others got as many. Nothing
/// where one of them was not beside it all that time, or where `last` has no second token: others
/// must have as many tokens at least, or they started later, and must have gone on until they were
/// cancelled after its end. Pure.
inline std::optional<double> full_batch_token_s(const TextRun& last,
                                                const std::vector<TextRun>& others) {
  if (last.tokens < 2) return std::nullopt;
  for (const TextRun& other : others) {
    if (!other.cancelled || other.tokens < last.tokens) return std::nullopt;
  }
  return last.decode_s /
         static_cast<double>((last.tokens - 1) * static_cast<int64_t>(others.size() + 1));
}

}  // namespace bench
