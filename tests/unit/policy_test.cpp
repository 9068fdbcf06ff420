// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace vlm {
namespace {

std::vector<RequestId> drained(FairQueue& queue) {
  std::vector<RequestId> order;
  while (!queue.empty()) {
    EXPECT_EQ(queue.front(), queue.front());
    order.push_back(queue.pop());
  }
  return order;
}

TEST(Policy, one_stream_is_served_in_order) {
  FairQueue queue;
  for (RequestId id = 1; id <= 4; ++id) {
    queue.push(9, id);
  }
  EXPECT_EQ(drained(queue), (std::vector<RequestId>{1, 2, 3, 4}));
}

TEST(Policy, streams_take_turns) {
  FairQueue queue;
  for (RequestId id = 1; id <= 4; ++id) {
    queue.push(1, id);
  }
  queue.push(2, 10);
  queue.push(3, 20);
  queue.push(2, 11);
  EXPECT_EQ(queue.size(), 7u);
  EXPECT_EQ(drained(queue), (std::vector<RequestId>{1, 10, 20, 2, 11, 3, 4}));
}

TEST(Policy, a_newcomer_waits_for_one_turn_of_each_other_stream_at_most) {
  FairQueue queue;
  for (RequestId id = 1; id <= 100; ++id) {
    queue.push(id % 2, id);
  }
  queue.pop();
  queue.push(7, 1000);
  std::vector<RequestId> order = drained(queue);
  EXPECT_EQ(order[2], 1000u);
}

TEST(Policy, removed_requests_are_skipped) {
  FairQueue queue;
  queue.push(1, 1);
  queue.push(2, 2);
  queue.push(2, 3);
  EXPECT_TRUE(queue.remove(1));
  EXPECT_FALSE(queue.remove(1));
  EXPECT_TRUE(queue.remove(2));
  EXPECT_EQ(drained(queue), (std::vector<RequestId>{3}));
}

}  // namespace
}  // namespace vlm
