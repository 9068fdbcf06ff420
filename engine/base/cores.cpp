// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/cores.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <set>

#include "base/control_groups.h"

namespace vlm {
namespace {

// Beyond any machine; the system refuses sets smaller than its own.
constexpr int kMostCpus = 1 << 16;

// Two CPUs are of one core where this is the same.
std::string core_of(const std::string& root, int cpu) {
  const std::string topology =
      root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
  for (const char* name : {"core_cpus_list", "thread_siblings_list"}) {
    std::ifstream file(topology + name);
    if (std::string siblings; file >> siblings) return siblings;
  }
  return "cpu " + std::to_string(cpu);
}

// CPUs' worth of time that one group grants; infinity where it has no limit.
double granted_by(const std::string& group, bool unified) {
  double quota = 0, period = 0;
  if (unified) {
    std::ifstream file(group + "/cpu.max");
    file >> quota >> period;  // "max" is no number
  } else {
    std::ifstream(group + "/cpu.cfs_quota_us") >> quota;  // -1: no limit
    std::ifstream(group + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

}  // namespace

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  for (int size = CPU_SETSIZE; size <= kMostCpus; size *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
        CPU_ALLOC(static_cast<size_t>(size)), [](cpu_set_t* one) { CPU_FREE(one); });
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    if (set == nullptr) break;
    if (sched_getaffinity(0, bytes, set.get()) == 0) {
      for (int cpu = 0; cpu < size; ++cpu) {
        if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set.get())) cpus.push_back(cpu);
      }
      break;
    }
    if (errno != EINVAL) break;
  }
  return cpus;
}

int usable_cores(const std::vector<int>& cpus, const std::string& root) {
  std::set<std::string> cores;
  for (const int cpu : cpus) cores.insert(core_of(root, cpu));
  double granted = std::numeric_limits<double>::infinity();
  visit_control_groups(root, "cpu", [&](const std::string& group, bool unified) {
    granted = std::min(granted, granted_by(group, unified));
  });
  const auto count = static_cast<double>(cores.size());
  return std::max(1, static_cast<int>(std::min(count, std::round(granted))));
}

}  // namespace vlm
