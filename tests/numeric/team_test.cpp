// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/team.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/compute_threads.h"

namespace vlm {
namespace {

class TeamOf : public ::testing::TestWithParam<int> {
 protected:
  const TeamSize size_{GetParam()};
  Team team_;
};

TEST_P(TeamOf, does_each_piece_once_and_sees_it_in_the_next_part) {
  constexpr int64_t kParts = 2000, kCount = 37;
  std::vector<int64_t> values(kCount, 0);
  std::atomic<int64_t> wrong = 0;
  team_.run([&](Team::Member& member) {
    for (int64_t part = 0; part < kParts; ++part) {
      member.share(kCount, part % 5 + 1, [&](int64_t begin, int64_t end) {
        if (end - begin > part % 5 + 1) ++wrong;
        // All that others wrote before is there, whoever wrote it.
        for (; begin < end; ++begin) {
          if (values[static_cast<size_t>((begin + part) % kCount)] / kCount != part) ++wrong;
        }
      });
      member.share(kCount, 3, [&](int64_t begin, int64_t end) {
        for (; begin < end; ++begin) values[static_cast<size_t>(begin)] += kCount;
      });
    }
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(values, std::vector<int64_t>(kCount, kParts * kCount));
}

TEST_P(TeamOf, has_parts_of_nothing) {
  std::atomic<int> calls = 0;
  team_.run([&](Team::Member& member) {
    member.share(0, 4, [&](int64_t, int64_t) { ++calls; });
    member.share(1, 4, [&](int64_t, int64_t) { ++calls; });
  });
  EXPECT_EQ(calls, 1);
}

TEST_P(TeamOf, has_members_with_numbers_of_their_own) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(Team::threads()));
  std::atomic<int> members = 0;
  team_.run([&](Team::Member& member) {
    ++seen[static_cast<size_t>(member.index())];
    members = member.members();
  });
  // The system may give fewer threads than were asked for (here: where OMP_THREAD_LIMIT is set).
  EXPECT_GE(members, 1);
  EXPECT_LE(members, Team::threads());
  for (int i = 0; i < Team::threads(); ++i) {
    EXPECT_EQ(seen[static_cast<size_t>(i)], i < members ? 1 : 0);
  }
}

TEST_P(TeamOf, is_one_thread_within_work_of_libtorch) {
  std::atomic<int> wrong = 0, parts = 0;
  at::parallel_for(0, 4, 1, [&](int64_t, int64_t) {
    if (!at::in_parallel_region()) return;
    if (Team::threads() != 1) ++wrong;
    Team().run([&](Team::Member& member) {
      if (member.index() != 0) ++wrong;
      member.share(3, 1, [&](int64_t, int64_t) { ++parts; });
    });
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(parts % 3, 0);
  EXPECT_EQ(parts > 0, GetParam() > 1);
}

INSTANTIATE_TEST_SUITE_P(Sizes, TeamOf, ::testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace vlm
