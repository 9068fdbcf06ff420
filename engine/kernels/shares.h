// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/claim.h"

namespace vlm {

/// Shares pieces of work out to libtorch's threads as they come for them, since other programs'
/// threads hold up one and not the other: `most` at first, one towards the end. claim() is
/// thread-safe.
class Shares {
 public:
  /// `count` pieces of work from `first` on; none are left where it is 0.
  struct Piece {
    int64_t first, count;
  };

  Shares(int64_t count, int64_t most) : count_(count), most_(most) {}

  Piece claim() {
    const Pieces some = claim_pieces(next_, count_, threads_, most_);
    return {some.begin, some.end - some.begin};
  }

  /// Calls `work` with each piece.
  template <typename Work>
  void each(const Work& work) {
    spread([&] {
      for (Piece at = claim(); at.count > 0; at = claim()) {
        for (int64_t i = 0; i < at.count; ++i) work(at.first + i);
      }
    });
  }

  /// Runs `work` on each thread that gets a piece.
  template <typename Work>
  void spread(const Work& work) const {
    at::parallel_for(0, std::min<int64_t>(threads_, count_), 1, [&](int64_t begin, int64_t end) {
      for (; begin < end; ++begin) work();
    });
  }

 private:
  const int64_t count_, most_;
  const int64_t threads_ = at::get_num_threads();
  std::atomic<int64_t> next_ = 0;
};

}  // namespace vlm
