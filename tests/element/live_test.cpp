// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include "element_support.h"

namespace element_test {
namespace {

/// Waits until the model is loaded: only then does a live window count.
void loaded(Rig& rig) {
  while (const MessagePtr message = rig.messages->next(GST_MESSAGE_PROGRESS)) {
    GstProgressType type;
    gst_message_parse_progress(message.get(), &type, nullptr, nullptr);
    if (type == GST_PROGRESS_TYPE_COMPLETE) {
      return;
    }
  }
  ADD_FAILURE() << "the model was not loaded";
}

TEST(Live, video_never_waits_and_the_newest_window_wins) {
  Rig rig("mode=live interval=1000000000 model=fake:live1");
  loaded(rig);
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push_range(0, 10 * GST_SECOND), GST_FLOW_OK);
  EXPECT_EQ(rig.buffers().size(), 250u);
  EXPECT_EQ(stat(rig.element, "windows"), 10u);
  EXPECT_EQ(stat(rig.element, "waiting"), 2u);
  EXPECT_EQ(stat(rig.element, "passed-over"), 8u);
  open_gate();
  EXPECT_EQ(time_of(description(rig.messages->next_description().get()), "index"), 0u);
  EXPECT_EQ(time_of(description(rig.messages->next_description().get()), "index"), 9u);
  EXPECT_TRUE(eventually([&] { return stat(rig.element, "waiting") == 0; }));
  EXPECT_EQ(stat(rig.element, "described"), 2u);
}

// A nanosecond counts as a millisecond, and no window of a frame that stays takes time of its own.
TEST(Live, shortest_interval_holds_up_nothing) {
  Rig rig("mode=live text-timing=window interval=1 model=fake:live7", true);
  loaded(rig);
  rig.begin("video/x-raw,format=RGB,width=16,height=8,framerate=0/1");
  close_gate();
  ASSERT_EQ(rig.push(0, 40 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_EQ(rig.push(40 * GST_MSECOND, GST_CLOCK_TIME_NONE), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "windows"), 40u);
  const guint64 year = 365 * 24 * 3600 * GST_SECOND;
  ASSERT_EQ(rig.push(year), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "windows"), year / GST_MSECOND);
  EXPECT_EQ(stat(rig.element, "waiting"), 2u);
  EXPECT_EQ(stat(rig.element, "passed-over"), year / GST_MSECOND - 2);
  open_gate();
  EXPECT_EQ(time_of(description(rig.messages->next_description().get()), "index"), 0u);
  EXPECT_EQ(time_of(description(rig.messages->next_description().get()), "index"),
            year / GST_MSECOND - 1);
}

TEST(Live, windows_before_the_model_is_there_are_passed_over) {
  Rig rig("mode=live interval=1000000000 model=fake:load=100000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 4 * GST_SECOND), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "passed-over"), 4u);
  EXPECT_EQ(stat(rig.element, "waiting"), 0u);
  EXPECT_TRUE(rig.eos());
}

TEST(Live, eos_waits_for_what_is_on_its_way) {
  Rig rig("mode=live interval=1000000000 model=fake:delay=60");
  loaded(rig);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 1200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(time_of(description(found[1].get()), "duration"), 200 * GST_MSECOND);
}

TEST(Live, eos_waits_no_longer_than_its_timeout) {
  Rig rig("mode=live interval=1000000000 eos-timeout=50000000 model=fake:live2");
  loaded(rig);
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push_range(0, 1200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(GST_EVENT_TYPE(events_of(rig.video).back().get()), GST_EVENT_EOS);
  EXPECT_TRUE(rig.messages->descriptions().empty());
  EXPECT_EQ(stat(rig.element, "passed-over"), 2u);
  // What was given up is cancelled, not left to run.
  EXPECT_TRUE(eventually([&] { return counts().cancelled > 0; }));
}

TEST(Live, eos_waits_with_the_longest_timeout) {
  Rig rig("mode=live interval=1000000000 eos-timeout=9223372036854775807 model=fake:delay=61");
  loaded(rig);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 1200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 2u);
}

TEST(Live, without_interval_a_free_model_takes_the_next_frame) {
  Rig rig("mode=live interval=0 model=fake:live3");
  loaded(rig);
  rig.begin();
  close_gate();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "windows"), 1u);
  open_gate(1);
  EXPECT_EQ(time_of(description(rig.messages->next_description().get()), "pts"), 0u);
  EXPECT_TRUE(eventually([&] { return stat(rig.element, "waiting") == 0; }));
  ASSERT_EQ(rig.push(GST_SECOND), GST_FLOW_OK);
  ASSERT_EQ(rig.push(GST_SECOND + 40 * GST_MSECOND), GST_FLOW_OK);
  open_gate();
  EXPECT_EQ(time_of(description(rig.messages->next_description().get()), "pts"), GST_SECOND);
  EXPECT_EQ(stat(rig.element, "windows"), 2u);
}

TEST(Live, auto_asks_upstream) {
  // The harness's source says it is live.
  Rig rig("interval=1000000000 model=fake:live4");
  loaded(rig);
  rig.begin();
  close_gate();
  EXPECT_EQ(rig.push_range(0, 10 * GST_SECOND), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "passed-over"), 8u);
}

TEST(Live, auto_is_live_where_upstream_does_not_answer) {
  Rig rig("interval=1000000000 model=fake:live5");
  loaded(rig);
  gst_pad_set_query_function(rig.video->srcpad,
                             [](GstPad*, GstObject*, GstQuery*) -> gboolean { return FALSE; });
  rig.begin();
  close_gate();
  EXPECT_EQ(rig.push_range(0, 10 * GST_SECOND), GST_FLOW_OK);
  EXPECT_EQ(stat(rig.element, "passed-over"), 8u);
}

TEST(Live, descriptions_carry_the_wall_clock) {
  Rig rig("mode=live interval=1000000000 model=fake:live6");
  loaded(rig);
  rig.begin();
  const gint64 before = g_get_real_time();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  const MessagePtr message = rig.messages->next_description();
  gint64 utc = 0;
  ASSERT_TRUE(gst_structure_get_int64(description(message.get()), "utc", &utc));
  EXPECT_GE(utc, before);
  EXPECT_LE(utc, g_get_real_time());
}

}  // namespace
}  // namespace element_test
