// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/compute_threads.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/cores.h"

namespace vlm {
namespace {

// Of the environment, which is what the process had afterwards.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) before_ = old;
    value == nullptr ? unsetenv(name) : setenv(name, value, 1);
  }
  ~Setting() { before_.empty() ? unsetenv(name_) : setenv(name_, before_.c_str(), 1); }

 private:
  const char* name_;
  std::string before_;
};

int threads_that_work() {
  std::atomic<int> count = 0;
  at::parallel_for(0, 64, 1, [&](int64_t, int64_t) { ++count; });
  return count;
}

#ifdef _OPENMP
TEST(ComputeThreads, a_team_has_the_size_it_is_given_and_the_former_one_afterwards) {
  const TeamSize outer(3);
  EXPECT_EQ(threads_that_work(), 3);
  {
    const TeamSize inner(2);
    EXPECT_EQ(threads_that_work(), 2);
    EXPECT_EQ(at::get_num_threads(), 2);
  }
  EXPECT_EQ(threads_that_work(), 3);
}

TEST(ComputeThreads, a_team_is_of_its_thread_alone) {
  const int before = at::get_num_threads();
  std::thread([&] {
    const TeamSize team(before + 2);
    EXPECT_EQ(threads_that_work(), before + 2);
    std::thread([&] { EXPECT_EQ(at::get_num_threads(), before); }).join();
  }).join();
  EXPECT_EQ(at::get_num_threads(), before);
}
#endif

TEST(ComputeThreads, are_no_more_than_cores) {
  const Setting unset("OMP_NUM_THREADS", nullptr), free("OMP_DYNAMIC", nullptr);
  const ComputeThreads threads = ComputeThreads::choose();
  EXPECT_EQ(threads.least, 1);
  EXPECT_LE(threads.most, usable_cores(allowed_cpus()));
  EXPECT_GE(threads.most, 1);
}

TEST(ComputeThreads, the_environment_has_its_way) {
  // libtorch has read its own before; what matters is that cores do not bound it.
  const Setting set("OMP_NUM_THREADS", "7");
  const TeamSize team(7);
  EXPECT_EQ(ComputeThreads::choose().most, at::get_num_threads());
}

TEST(ComputeThreads, do_not_change_where_that_is_not_wanted) {
  for (const char* no : {"false", "FALSE"}) {
    const Setting fixed("OMP_DYNAMIC", no);
    const ComputeThreads threads = ComputeThreads::choose();
    EXPECT_EQ(threads.least, threads.most);
  }
  const Setting free("OMP_DYNAMIC", "true");
  EXPECT_EQ(ComputeThreads::choose().least, 1);
}

}  // namespace
}  // namespace vlm
