// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

#include "base/control_groups.h"

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

// The smallest of what this process's groups leave.
int64_t left_by_groups(const std::string& root) {
  int64_t left = kNoLimit;
  visit_control_groups(root, "memory", [&](const std::string& group, bool unified) {
    left = std::min(left, unified
                              ? left_by(group, "/memory.max", "/memory.current")
                              : left_by(group, "/memory.limit_in_bytes", "/memory.usage_in_bytes"));
  });
  return left;
}

}  // namespace

int64_t available_host_memory(const std::string& root) {
  return std::min(number_of(root + "/proc/meminfo", "MemAvailable:") * 1024, left_by_groups(root));
}

}  // namespace vlm
