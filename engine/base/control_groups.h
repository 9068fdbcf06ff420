// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <functional>
#include <string>

namespace vlm {

/// Calls `visit` with the directory of each control group (a container's limits, cgroup v1 or v2)
/// that this process is in for `controller` ("memory", "cpu"), and of those around it; `unified`
/// says that its files have the names of v2. Directories may be missing: in a container the mount
/// is often its own group, and the path one that is not there. `root`: where /proc and /sys are.
/// Reentrant.
void visit_control_groups(
    const std::string& root, const std::string& controller,
    const std::function<void(const std::string& directory, bool unified)>& visit);

}  // namespace vlm
