// SPDX-License-Identifier: LGPL-2.1-or-later
#include "backoff.h"

#include <gtest/gtest.h>

namespace describe {
namespace {

using std::chrono::seconds;

TEST(Backoff, doubles_up_to_half_a_minute) {
  Backoff backoff;
  for (const int wanted : {1, 2, 4, 8, 16, 30, 30}) EXPECT_EQ(backoff.next(), seconds(wanted));
}

TEST(Backoff, begins_anew_after_a_connection_that_held) {
  Backoff backoff;
  for (int i = 0; i < 5; ++i) backoff.next();
  backoff.held(seconds(29));
  EXPECT_EQ(backoff.next(), seconds(30));
  backoff.held(seconds(30));
  EXPECT_EQ(backoff.next(), seconds(1));
}

}  // namespace
}  // namespace describe
