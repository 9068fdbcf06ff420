// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>
#include <vector>

namespace vlm {

/// Numbers of the logical CPUs that the calling thread may run on. Reentrant.
std::vector<int> allowed_cpus();

/// How many threads that compute without a pause have a core each: the physical cores of the
/// logical CPUs `cpus`, no more than the processor time that the control groups around this process
/// grant (`cpu.max`, `cpu.cfs_quota_us`), rounded; 1 at least. `root`: where /proc and /sys are;
/// where they do not tell, every CPU is a core of its own. Reentrant.
int usable_cores(const std::vector<int>& cpus, const std::string& root = "");

}  // namespace vlm
