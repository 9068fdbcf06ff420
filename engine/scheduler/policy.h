// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "vlm/engine.h"

namespace vlm {

/// Who runs next: the streams take turns, one request each; within a stream first come, first
/// served. Pure; not thread-safe.
class FairQueue {
 public:
  void push(uint64_t stream, RequestId id);
  bool empty() const { return turns_.empty(); }
  size_t size() const;
  /// The request whose turn it is. Only where not empty.
  RequestId front() const { return turns_.front().waiting.front(); }
  /// Takes it out; its stream goes to the end of the line.
  RequestId pop();
  /// Takes a request out of turn; false where it is not here.
  bool remove(RequestId id);

 private:
  struct Stream {
    uint64_t stream = 0;
    std::deque<RequestId> waiting;  ///< never empty
  };
  std::deque<Stream> turns_;
};

}  // namespace vlm
