// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/policy.h"

#include <algorithm>
#include <utility>

namespace vlm {

void FairQueue::push(uint64_t stream, RequestId id) {
  auto known = std::find_if(turns_.begin(), turns_.end(),
                            [&](const Stream& turn) { return turn.stream == stream; });
  if (known == turns_.end()) {
    turns_.push_back({stream, {}});
    known = std::prev(turns_.end());
  }
  known->waiting.push_back(id);
}

size_t FairQueue::size() const {
  size_t total = 0;
  for (const Stream& turn : turns_) {
    total += turn.waiting.size();
  }
  return total;
}

RequestId FairQueue::pop() {
  Stream turn = std::move(turns_.front());
  turns_.pop_front();
  const RequestId id = turn.waiting.front();
  turn.waiting.pop_front();
  if (!turn.waiting.empty()) {
    turns_.push_back(std::move(turn));
  }
  return id;
}

bool FairQueue::remove(RequestId id) {
  for (auto turn = turns_.begin(); turn != turns_.end(); ++turn) {
    const auto found = std::find(turn->waiting.begin(), turn->waiting.end(), id);
    if (found != turn->waiting.end()) {
      turn->waiting.erase(found);
      if (turn->waiting.empty()) {
        turns_.erase(turn);
      }
      return true;
    }
  }
  return false;
}

}  // namespace vlm
