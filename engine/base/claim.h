// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace vlm {

/// Pieces of work next to each other; none where `begin` is not below `end`.
struct Pieces {
  int64_t begin, end;
};

/// Takes some of `count` pieces, of which `next` is the first that nobody has: many at first, no
/// more than `most`, and one at a time towards the end, so that `threads` that come for them end
/// together. Thread-safe.
inline Pieces claim_pieces(std::atomic<int64_t>& next, int64_t count, int64_t threads,
                           int64_t most) {
  int64_t first = next.load(std::memory_order_relaxed), taken = 0;
  do {
    if (first >= count) return {count, count};
    taken = std::clamp<int64_t>((count - first) / (2 * threads), 1, most);
  } while (!next.compare_exchange_weak(first, first + taken, std::memory_order_relaxed));
  return {first, first + taken};
}

}  // namespace vlm
