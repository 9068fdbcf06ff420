// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/host_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "fake_system.h"

namespace vlm {
namespace {

class HostMemory : public ::testing::Test, protected test::FakeSystem {
 protected:
  HostMemory() {
    write("proc/meminfo", "MemTotal:       2000 kB\nMemFree: 10 kB\nMemAvailable:    1000 kB\n");
  }
  int64_t available() const { return available_host_memory(root()); }
};

TEST_F(HostMemory, is_the_systems_where_there_are_no_groups) {
  EXPECT_EQ(available(), 1000 * 1024);
}

TEST_F(HostMemory, is_nothing_where_nothing_tells) {
  std::filesystem::remove_all(root() + "/proc");
  EXPECT_EQ(available(), 0);
}

TEST_F(HostMemory, is_what_the_group_leaves_and_its_files_hold) {
  write("proc/self/cgroup", "0::/box\n");
  write("sys/fs/cgroup/box/memory.max", "500000\n");
  write("sys/fs/cgroup/box/memory.current", "450000\n");
  write("sys/fs/cgroup/box/memory.stat", "anon 400000\ninactive_file 20000\nactive_file 7000\n");
  EXPECT_EQ(available(), 77000);
}

TEST_F(HostMemory, is_what_the_tightest_group_around_leaves) {
  write("proc/self/cgroup", "0::/outer/inner\n");
  write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  write("sys/fs/cgroup/outer/inner/memory.current", "1\n");
  write("sys/fs/cgroup/outer/memory.max", "9000\n");
  write("sys/fs/cgroup/outer/memory.current", "10000\n");
  EXPECT_EQ(available(), 0);
  write("sys/fs/cgroup/outer/memory.max", "max\n");
  EXPECT_EQ(available(), 1000 * 1024);
}

TEST_F(HostMemory, knows_a_container_by_its_mount) {
  write("proc/self/cgroup", "0::/not/seen/from/here\n");
  write("sys/fs/cgroup/memory.max", "300000\n");
  write("sys/fs/cgroup/memory.current", "100000\n");
  EXPECT_EQ(available(), 200000);
}

TEST_F(HostMemory, knows_the_first_version_of_groups) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/box\n1:name=systemd:/box\n");
  write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "600000\n");
  write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "100000\n");
  write("sys/fs/cgroup/memory/box/memory.stat", "inactive_file 5000\n");
  EXPECT_EQ(available(), 505000);
}

TEST(HostMemoryHere, is_something) {
  EXPECT_GT(available_host_memory(), 1 << 20);
}

}  // namespace
}  // namespace vlm
