// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "base/claim.h"

namespace vlm {

/// libtorch's threads at one piece of work together, from its beginning to its end. Its parts
/// follow each other in less time than it takes to start threads for each, and every thread takes
/// as much of a part as it comes to, since other programs hold up one and not the other.
/// Thread-bound.
class Team {
 public:
  /// One thread of the team. Thread-bound.
  class Member {
   public:
    /// 0 … members() - 1
    int index() const { return index_; }
    int members() const { return team_.size_.load(std::memory_order_relaxed); }

    /// A part of the work: calls `work(begin, end)` for pieces of 0 … count - 1, `most` of them or
    /// fewer at a time, until all are done by some member. All members must come to the same parts
    /// in the same order, and what one did of a part is seen by all in the next.
    template <typename Work>
    void share(int64_t count, int64_t most, const Work& work) {
      const int64_t threads = members();
      for (Pieces some = claim_pieces(team_.next_, count, threads, most); some.begin < some.end;
           some = claim_pieces(team_.next_, count, threads, most)) {
        work(some.begin, some.end);
      }
      team_.wait();
    }

   private:
    friend class Team;
    Member(Team& team, int index) : team_(team), index_(index) {}

    Team& team_;
    int index_;
  };

  /// Calls `work`, which must not throw, on each of so many threads as libtorch uses now, the
  /// caller's among them; on that one alone where it is one of libtorch's at work already.
  void run(const std::function<void(Member&)>& work);

  /// As many threads as run() takes at most.
  static int threads();

 private:
  void wait();

  std::atomic<int> size_ = 1;
  // On lines of their own, since all members write them.
  alignas(64) std::atomic<int64_t> next_ = 0;
  alignas(64) std::atomic<int> arrived_ = 0;
  alignas(64) std::atomic<uint32_t> part_ = 0;
};

}  // namespace vlm
