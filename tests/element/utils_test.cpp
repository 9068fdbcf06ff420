// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlm-utils.h"

#include <gtest/gtest.h>

#include <new>
#include <utility>

namespace gstvlm {
namespace {

TEST(utils, deadlines_beyond_the_clock_never_come) {
  const Clock::time_point now = Clock::now();
  EXPECT_EQ(deadline_after(now, 5), now + std::chrono::nanoseconds(5));
  const std::chrono::nanoseconds left = Clock::time_point::max() - now;
  EXPECT_TRUE(deadline_after(now, static_cast<uint64_t>(left.count()) - 1));
  EXPECT_FALSE(deadline_after(now, static_cast<uint64_t>(left.count())));
  EXPECT_FALSE(deadline_after(now, INT64_MAX));
  EXPECT_FALSE(deadline_after(now, UINT64_MAX));
}

TEST(utils, want_of_memory_says_what_to_do) {
  gst_init(nullptr, nullptr);
  GstElement* pipeline = gst_pipeline_new(nullptr);
  GstBus* bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_READY);
  guarded(pipeline, [] { throw std::bad_alloc(); });
  GstMessage* message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  ASSERT_NE(message, nullptr);
  GError* error = nullptr;
  gst_message_parse_error(message, &error, nullptr);
  EXPECT_EQ(error->code, GST_RESOURCE_ERROR_NO_SPACE_LEFT);
  EXPECT_NE(std::string(error->message).find("lower frames"), std::string::npos);
  g_error_free(error);
  gst_message_unref(message);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pipeline);
}

TEST(utils, gaps_grow_by_what_touches_them) {
  const EventPtr gap(gst_event_new_gap(100, 50));
  const auto grown = [&](uint64_t start, uint64_t duration) {
    const EventPtr longer = prolonged_gap(gap.get(), start, duration);
    GstClockTime from = 0;
    GstClockTime length = 0;
    if (longer != nullptr) {
      gst_event_parse_gap(longer.get(), &from, &length);
    }
    return std::pair(from, length);
  };
  EXPECT_EQ(grown(150, 10), std::pair(GstClockTime{100}, GstClockTime{60}));
  EXPECT_EQ(grown(120, 10), std::pair(GstClockTime{100}, GstClockTime{50}));
  EXPECT_EQ(grown(151, 10), std::pair(GstClockTime{0}, GstClockTime{0}));
  EXPECT_EQ(grown(99, 10), std::pair(GstClockTime{0}, GstClockTime{0}));
  const EventPtr other(gst_event_new_eos());
  EXPECT_EQ(prolonged_gap(other.get(), 150, 10), nullptr);
}

}  // namespace
}  // namespace gstvlm
