// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <string>
#include <thread>

#include "fake_system.h"

namespace vlm {
namespace {

class Cores : public ::testing::Test, protected test::FakeSystem {
 protected:
  void siblings(int cpu, const std::string& list) const {
    write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
          list + "\n");
  }
  int cores(const std::vector<int>& cpus) const { return usable_cores(cpus, root()); }
};

TEST_F(Cores, are_cpus_where_nothing_tells) {
  EXPECT_EQ(cores({0, 1, 5}), 3);
  EXPECT_EQ(cores({}), 1);
}

TEST_F(Cores, count_once_with_their_siblings) {
  for (const int cpu : {0, 4}) siblings(cpu, "0,4");
  for (const int cpu : {1, 5}) siblings(cpu, "1,5");
  EXPECT_EQ(cores({0, 1, 4, 5}), 2);
  EXPECT_EQ(cores({0, 4}), 1);
  EXPECT_EQ(cores({4, 1}), 2);
}

TEST_F(Cores, are_no_more_than_the_groups_quota) {
  write("proc/self/cgroup", "0::/box/inner\n");
  write("sys/fs/cgroup/box/inner/cpu.max", "max 100000\n");
  EXPECT_EQ(cores({0, 1, 2, 3}), 4);
  write("sys/fs/cgroup/box/cpu.max", "260000 100000\n");
  EXPECT_EQ(cores({0, 1, 2, 3}), 3);
  write("sys/fs/cgroup/cpu.max", "120000 100000\n");
  EXPECT_EQ(cores({0, 1, 2, 3}), 1);
  write("sys/fs/cgroup/cpu.max", "20000 100000\n");
  EXPECT_EQ(cores({0, 1, 2, 3}), 1);
}

TEST_F(Cores, know_the_first_version_of_groups) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/box\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cores({0, 1, 2}), 3);
  write("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "100000\n");
  write("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "50000\n");
  EXPECT_EQ(cores({0, 1, 2}), 2);
}

TEST(CoresHere, are_those_of_the_threads_affinity) {
  const std::vector<int> all = allowed_cpus();
  ASSERT_FALSE(all.empty());
  EXPECT_LE(usable_cores(all), static_cast<int>(all.size()));
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(all.back()), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(allowed_cpus(), std::vector<int>{all.back()});
  }).join();
}

}  // namespace
}  // namespace vlm
