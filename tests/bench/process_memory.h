// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <fstream>
#include <string>

namespace bench {

/// A figure of /proc/self/status in MiB, such as VmRSS, the memory that the process holds now, or
/// VmHWM, the most that it ever held; mapped files count as far as they were read. 0 where there is
/// no such line.
inline double status_mib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == name + ":" && status >> kib) return kib / 1024;
  }
  return 0;
}

/// The most memory that this process held, apart from what was only there for measuring.
class PeakMemory {
 public:
  double mib() const { return std::max(before_, status_mib("VmHWM")); }

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
