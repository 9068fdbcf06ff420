// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

namespace vlm {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number behind `key` in a file of lines "key number …".
int64_t number_of(const std::string& file, const std::string& key) {
  std::ifstream lines(file);
  std::string found;
  for (int64_t number = 0; lines >> found;) {
    if (found == key && lines >> number) return number;
    std::getline(lines, found);
  }
  return 0;
}

// Nothing where there is no such file, or no number in it ("max").
std::optional<int64_t> only_number(const std::string& file) {
  std::ifstream stream(file);
  int64_t number = 0;
  if (stream >> number) return number;
  return std::nullopt;
}

// What one group leaves, with the names of either version.
int64_t left_by(const std::string& group, const char* limit, const char* used) {
  const std::optional<int64_t> most = only_number(group + limit), now = only_number(group + used);
  if (!most || !now) return kNoLimit;
  const std::string stat = group + "/memory.stat";
  const int64_t cache = number_of(stat, "inactive_file") + number_of(stat, "active_file");
  return std::max<int64_t>(0, *most - *now + cache);
}

// What the group at `path` below `mount` and those around it leave. In a container the mount is
// often its own group, and the path one that is not there.
int64_t left_by_all(const std::string& mount, const std::string& path, const char* limit,
                    const char* used) {
  int64_t left = left_by(mount, limit, used);
  for (size_t end = path.size(); end > 0 && end != std::string::npos;
       end = path.rfind('/', end - 1)) {
    left = std::min(left, left_by(mount + path.substr(0, end), limit, used));
  }
  return left;
}

// The smallest of what this process's groups leave.
int64_t left_by_groups(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  int64_t left = kNoLimit;
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string kinds(",");
    kinds.append(line, first + 1, second - first - 1).append(",");
    const std::string path = line.substr(second + 1), mount = root + "/sys/fs/cgroup";
    if (kinds == ",,") {
      left = std::min(left, left_by_all(mount, path, "/memory.max", "/memory.current"));
    } else if (kinds.find(",memory,") != std::string::npos) {
      left = std::min(left, left_by_all(mount + "/memory", path, "/memory.limit_in_bytes",
                                        "/memory.usage_in_bytes"));
    }
  }
  return left;
}

}  // namespace

int64_t available_host_memory(const std::string& root) {
  return std::min(number_of(root + "/proc/meminfo", "MemAvailable:") * 1024, left_by_groups(root));
}

}  // namespace vlm
