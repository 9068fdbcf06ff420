// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <string>

namespace vlm {

/// Bytes that this process could still allocate before the system, or the control group that it
/// runs in (a container's limit, cgroup v1 or v2), has none left; what the file cache holds counts
/// as free. 0 where nothing tells. `root`: where /proc and /sys are. Reentrant.
int64_t available_host_memory(const std::string& root = "");

}  // namespace vlm
