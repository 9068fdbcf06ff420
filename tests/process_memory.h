// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <fstream>
#include <string>

namespace vlm::test {

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

}  // namespace vlm::test
