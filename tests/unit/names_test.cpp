// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vlm/names.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace vlm {
namespace {

template <typename Enum, size_t kCount>
void expect_round_trip(const EnumNames<Enum, kCount>& names) {
  std::set<std::string> seen;
  for (const auto& [value, name] : names) {
    EXPECT_TRUE(seen.insert(name).second) << name;
    EXPECT_EQ(enum_name(names, value), std::string(name));
    EXPECT_EQ(enum_value(names, name), value);
  }
  EXPECT_FALSE(enum_value(names, "no such name"));
}

TEST(Names, every_name_leads_back_to_its_value) {
  expect_round_trip(kDTypeNames);
  expect_round_trip(kQuantizationNames);
  expect_round_trip(kAspectRatioNames);
  expect_round_trip(kEarlyStoppingNames);
}

TEST(Names, finish_reasons_are_the_words_of_the_interfaces) {
  static_assert(std::string_view(finish_reason_name(FinishReason::kStopString)) == "stop_string");
  EXPECT_STREQ(finish_reason_name(FinishReason::kStop), "stop");
  EXPECT_STREQ(finish_reason_name(FinishReason::kLength), "length");
  EXPECT_STREQ(finish_reason_name(FinishReason::kRepetition), "repetition");
  EXPECT_STREQ(finish_reason_name(FinishReason::kCancelled), "cancelled");
}

}  // namespace
}  // namespace vlm
