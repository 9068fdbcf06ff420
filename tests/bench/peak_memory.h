// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <fstream>

#include "process_memory.h"

namespace bench {

/// The most memory that this process held, apart from what was only there for measuring.
class PeakMemory {
 public:
  double mib() const { return std::max(before_, vlm::test::status_mib("VmHWM")); }

  /// What `work` takes and gives back does not count (where the system forbids to forget the old
  /// peak, it does).
  template <typename Work>
  auto leave_out(const Work& work) {
    before_ = mib();
    const auto result = work();
    std::ofstream("/proc/self/clear_refs") << "5";
    return result;
  }

 private:
  double before_ = 0;
};

}  // namespace bench
