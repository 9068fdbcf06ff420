// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/admission.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/failure.h"
#include "scheduler/slots.h"

namespace vlm {
namespace {

TEST(Admission, beams_share_the_prompt_only) {
  EXPECT_EQ(worst_case(100, 1, 20), (Share{1, 120}));
  EXPECT_EQ(worst_case(100, 4, 20), (Share{4, 180}));
}

TEST(Admission, rows_and_slots_both_count) {
  const Share capacity = {4, 100};
  EXPECT_TRUE(fits(capacity, {3, 60}, {1, 40}));
  EXPECT_FALSE(fits(capacity, {3, 60}, {2, 40}));
  EXPECT_FALSE(fits(capacity, {3, 60}, {1, 41}));
}

TEST(PromptRoom, without_texts_one_long_prompt_is_taken_or_as_many_as_a_chunk_holds) {
  PromptRoom together(false, 100, 500);
  EXPECT_EQ(together.take(70), 70);
  EXPECT_FALSE(together.starts(31));
  EXPECT_TRUE(together.starts(30));
  EXPECT_EQ(together.take(30), 30);
  EXPECT_FALSE(together.starts(1));
  EXPECT_EQ(together.take(1), 0);
  PromptRoom alone(false, 100, 500);
  EXPECT_TRUE(alone.starts(400));
  EXPECT_EQ(alone.take(400), 400);
  EXPECT_FALSE(alone.starts(1));
  PromptRoom cut(false, 100, 500);
  EXPECT_TRUE(cut.starts(30000));
  EXPECT_EQ(cut.take(30000), 500);
  EXPECT_FALSE(cut.starts(1));
}

TEST(PromptRoom, beside_texts_what_is_longer_than_a_chunk_is_cut) {
  PromptRoom room(true, 8, 100);
  EXPECT_TRUE(room.starts(100));
  EXPECT_EQ(room.take(5), 5);
  EXPECT_FALSE(room.starts(100));
  EXPECT_FALSE(room.starts(4));
  EXPECT_TRUE(room.starts(3));
  PromptRoom whole(true, 8, 100);
  EXPECT_EQ(whole.take(100), 8);
  EXPECT_FALSE(whole.starts(1));
}

TEST(PromptRoom, what_must_not_be_cut_is_taken_whole) {
  PromptRoom room(true, 8, 100);
  EXPECT_EQ(room.take_whole(50), 50);
  EXPECT_FALSE(room.starts(1));
  EXPECT_EQ(room.take(4), 0);
}

TEST(Slots, greedy_rows_add_one_slot_a_step) {
  SlotPool pool(10);
  {
    SequenceSlots slots(pool, 3);
    EXPECT_EQ(pool.free_slots(), 7);
    const std::vector<int64_t> same = {0};
    slots.advance(same);
    slots.advance(same);
    EXPECT_EQ(slots.tables()[0], (SlotTable{0, 1, 2, 3, 4}));
    EXPECT_EQ(pool.free_slots(), 5);
  }
  EXPECT_EQ(pool.free_slots(), 10);
}

TEST(Slots, a_slot_taken_ahead_is_the_next_one_and_goes_back_with_the_others) {
  SlotPool pool(10);
  {
    SequenceSlots slots(pool, 3);
    const int32_t upcoming = slots.upcoming();
    EXPECT_EQ(slots.upcoming(), upcoming);
    EXPECT_EQ(pool.free_slots(), 6);
    EXPECT_NE(pool.take(), upcoming);
    slots.advance(std::vector<int64_t>{0});
    EXPECT_EQ(slots.tables()[0].back(), upcoming);
    EXPECT_EQ(pool.free_slots(), 5);
    slots.upcoming();
  }
  EXPECT_EQ(pool.free_slots(), 9);
}

TEST(Slots, beams_share_their_past_and_free_what_none_goes_on_from) {
  SlotPool pool(20);
  SequenceSlots slots(pool, 2);
  slots.advance(std::vector<int64_t>{0, 0, 0});
  EXPECT_EQ(pool.free_slots(), 15);
  slots.advance(std::vector<int64_t>{1, 1, 1});
  // The prompt's 2, row 1's one, three new ones; rows 0 and 2 were dropped.
  EXPECT_EQ(pool.free_slots(), 14);
  const std::vector<SlotTable>& tables = slots.tables();
  EXPECT_EQ(tables[0][2], tables[1][2]);
  EXPECT_NE(tables[0][3], tables[1][3]);
  EXPECT_EQ(tables[2].size(), 4u);
}

TEST(Slots, the_reserve_covers_any_course_of_beams) {
  std::mt19937 random(20240611);
  for (int round = 0; round < 200; ++round) {
    const int64_t beams = 1 + random() % 5;
    const int64_t prompt = 1 + random() % 6;
    const int64_t steps = 1 + random() % 12;
    const Share need = worst_case(prompt, beams, steps);
    SlotPool pool(need.slots);
    {
      SequenceSlots slots(pool, prompt);
      for (int64_t step = 0; step < steps; ++step) {
        std::vector<int64_t> parents;
        for (int64_t beam = 0; beam < beams; ++beam) {
          parents.push_back(static_cast<int64_t>(random() % slots.tables().size()));
        }
        ASSERT_NO_THROW(slots.advance(parents)) << "round " << round;
        std::vector<int32_t> last;
        for (const SlotTable& table : slots.tables()) {
          ASSERT_EQ(static_cast<int64_t>(table.size()), prompt + step + 1);
          last.push_back(table.back());
        }
        std::sort(last.begin(), last.end());
        ASSERT_EQ(std::unique(last.begin(), last.end()), last.end()) << "two rows write one slot";
      }
    }
    ASSERT_EQ(pool.free_slots(), need.slots) << "round " << round;
  }
}

TEST(Slots, an_empty_pool_says_so) {
  SlotPool pool(1);
  pool.take();
  EXPECT_THROW(pool.take(), Failure);
}

}  // namespace
}  // namespace vlm
