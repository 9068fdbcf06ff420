// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/repetition.h"

#include <algorithm>

namespace vlm {
namespace {

// How many ids at the end equal the one `period` before them.
int64_t periodic_tail(std::span<const int64_t> ids, int64_t period) {
  const auto size = static_cast<int64_t>(ids.size());
  int64_t count = 0;
  while (count + period < size && ids[static_cast<size_t>(size - 1 - count)] ==
                                      ids[static_cast<size_t>(size - 1 - count - period)]) {
    ++count;
  }
  return count;
}

}  // namespace

Loop find_loop(std::span<const int64_t> ids, int64_t repeats) {
  if (repeats < 2) {
    return {};
  }
  const int64_t longest = std::min(kLongestLoop, static_cast<int64_t>(ids.size()) / repeats);
  for (int64_t period = 1; period <= longest; ++period) {
    const int64_t found = 1 + periodic_tail(ids, period) / period;
    if (found >= repeats && found * period >= kShortestLoopSpan) {
      return {period, found};
    }
  }
  return {};
}

}  // namespace vlm
