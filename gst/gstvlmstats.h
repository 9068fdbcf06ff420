// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What an element has done so far.

#include <cstdint>
#include <vector>

#include "gstvlm-utils.h"
#include "gstvlmdispatch.h"

namespace gstvlm {

/// Counts and latencies since reset(). Thread-safe.
class Stats {
 public:
  void reset();
  void count_frame();
  void count_failed();
  void count_described(const vlm::Description& description, uint64_t latency_ns);

  /// The structure `vlm-stats`; `counts` are the dispatcher's. The 95th percentile is that of the
  /// last 1024 descriptions.
  StructurePtr snapshot(const Counts& counts) const;

 private:
  mutable Mutex mutex_;
  uint64_t frames_ GSTVLM_GUARDED_BY(mutex_) = 0;
  uint64_t failed_ GSTVLM_GUARDED_BY(mutex_) = 0;
  uint64_t described_ GSTVLM_GUARDED_BY(mutex_) = 0;
  uint64_t tokens_ GSTVLM_GUARDED_BY(mutex_) = 0;
  double seconds_ GSTVLM_GUARDED_BY(mutex_) = 0;  // prompt and tokens, without waiting
  double latency_sum_ns_ GSTVLM_GUARDED_BY(mutex_) = 0;
  uint64_t latency_max_ns_ GSTVLM_GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> latencies_ns_ GSTVLM_GUARDED_BY(mutex_);  // ring
};

}  // namespace gstvlm
