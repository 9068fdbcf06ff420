// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/video/video.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "element_support.h"

namespace element_test {
namespace {

GstEvent* custom(GstEventType type, const char* name) {
  return gst_event_new_custom(type, gst_structure_new(name, "number", G_TYPE_INT, 7, nullptr));
}

TEST(Passthrough, buffers_pass_as_they_are) {
  Rig rig("mode=live meta-policy=none");
  rig.begin();
  BufferPtr buffer = solid_frame(384, 3 * GST_SECOND, 40 * GST_MSECOND);
  GST_BUFFER_DTS(buffer.get()) = 1;
  GST_BUFFER_OFFSET(buffer.get()) = 2;
  GST_BUFFER_OFFSET_END(buffer.get()) = 3;
  GST_BUFFER_FLAG_SET(buffer.get(), GST_BUFFER_FLAG_DISCONT | GST_BUFFER_FLAG_CORRUPTED);
  gst_buffer_add_video_crop_meta(buffer.get())->width = 5;
  GstBuffer* const sent = buffer.get();
  const BufferPtr same(gst_buffer_ref(sent));
  ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
  const BufferPtr received(gst_harness_pull(rig.video));
  EXPECT_EQ(received.get(), sent);
  EXPECT_EQ(GST_BUFFER_DTS(received.get()), 1u);
  EXPECT_EQ(GST_BUFFER_OFFSET_END(received.get()), 3u);
  EXPECT_TRUE(GST_BUFFER_FLAG_IS_SET(received.get(), GST_BUFFER_FLAG_CORRUPTED));
}

TEST(Passthrough, meta_does_not_copy_memory) {
  Rig rig("mode=recorded interval=100000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_NE(rig.messages->next_description(), nullptr);
  rig.buffers();
  BufferPtr buffer = solid_frame(384, 200 * GST_MSECOND, 40 * GST_MSECOND);
  GstMemory* const memory = gst_buffer_peek_memory(buffer.get(), 0);
  const BufferPtr held_elsewhere(gst_buffer_ref(buffer.get()));
  ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
  const BufferPtr received(gst_harness_pull(rig.video));
  EXPECT_NE(meta_of(received.get()), nullptr);
  EXPECT_EQ(meta_of(held_elsewhere.get()), nullptr);
  EXPECT_EQ(gst_buffer_peek_memory(received.get(), 0), memory);
}

TEST(Passthrough, video_is_writable_again_once_a_window_has_its_frames) {
  Rig rig("mode=recorded interval=1000000000 meta-policy=none");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 600 * GST_MSECOND), GST_FLOW_OK);
  const std::vector<BufferPtr> buffers = rig.buffers();
  for (const BufferPtr& buffer : buffers) {
    EXPECT_TRUE(eventually([&] { return gst_buffer_is_writable(buffer.get()) != FALSE; }))
        << GST_BUFFER_PTS(buffer.get());
  }
}

// As a camera that has just enough buffers for itself and one neighbour. The slow model and the
// last frame, which may be wanted again, must not keep it from going on.
TEST(Passthrough, small_pools_are_never_starved) {
  for (const guint spare : {0u, 1u}) {
    const auto pool = frame_pool(1, 1 + spare);
    Rig rig("mode=recorded interval=1000000000 frames=2 max-pending=8 model=fake:pool");
    rig.begin();
    close_gate();
    for (guint i = 0; i < 75; ++i) {
      BufferPtr buffer = pooled_frame(pool.get(), i * 40 * GST_MSECOND, static_cast<guint8>(i));
      ASSERT_NE(buffer, nullptr) << i;
      ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
      gst_buffer_unref(gst_harness_pull(rig.video));
    }
    open_gate();
    ASSERT_TRUE(rig.eos());
    // What is described is what was in the buffer then.
    for (const char* shade : {"7,7,7", "32,32,32", "57,57,57"}) {
      const MessagePtr message = rig.messages->next_description();
      ASSERT_NE(message, nullptr);
      EXPECT_EQ(text_of(description(message.get())),
                "Describe the scene.|16x8|" + std::string(shade) + "|2");
    }
  }
}

TEST(Passthrough, downstream_events_pass_in_order) {
  Rig rig("mode=live");
  rig.begin();
  rig.push(0);
  rig.push_event(custom(GST_EVENT_CUSTOM_DOWNSTREAM, "one"));
  rig.push_event(custom(GST_EVENT_CUSTOM_DOWNSTREAM_OOB, "two"));
  rig.push_event(gst_event_new_gap(40 * GST_MSECOND, 40 * GST_MSECOND));
  rig.push_event(gst_event_new_tag(gst_tag_list_new(GST_TAG_TITLE, "title", nullptr)));
  GstEvent* stop = gst_event_new_eos();
  const guint32 seqnum = gst_event_get_seqnum(stop);
  rig.push_event(stop);
  const GstEventType expected[] = {GST_EVENT_STREAM_START,
                                   GST_EVENT_CAPS,
                                   GST_EVENT_SEGMENT,
                                   GST_EVENT_CUSTOM_DOWNSTREAM,
                                   GST_EVENT_CUSTOM_DOWNSTREAM_OOB,
                                   GST_EVENT_GAP,
                                   GST_EVENT_TAG,
                                   GST_EVENT_EOS};
  const std::vector<EventPtr> events = events_of(rig.video);
  ASSERT_EQ(events.size(), std::size(expected));
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(GST_EVENT_TYPE(events[i].get()), expected[i]) << i;
  }
  EXPECT_EQ(gst_event_get_seqnum(events.back().get()), seqnum);
}

TEST(Passthrough, upstream_events_pass) {
  Rig rig("mode=live", true);
  rig.begin();
  rig.push(0);
  gst_harness_push_upstream_event(rig.video, custom(GST_EVENT_CUSTOM_UPSTREAM, "up"));
  gst_harness_push_upstream_event(
      rig.video, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 0.5, 3, 2 * GST_SECOND));
  // How late texts are is not the video's business.
  gst_harness_push_upstream_event(
      rig.text, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 0.9, 3, 2 * GST_SECOND));
  std::vector<EventPtr> events;
  while (GstEvent* event = gst_harness_try_pull_upstream_event(rig.video)) {
    if (GST_EVENT_TYPE(event) != GST_EVENT_RECONFIGURE &&
        GST_EVENT_TYPE(event) != GST_EVENT_LATENCY) {
      events.emplace_back(event);
    } else {
      gst_event_unref(event);
    }
  }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(GST_EVENT_TYPE(events[0].get()), GST_EVENT_CUSTOM_UPSTREAM);
  gdouble proportion = 0;
  gst_event_parse_qos(events[1].get(), nullptr, &proportion, nullptr, nullptr);
  EXPECT_EQ(proportion, 0.5);
}

TEST(Passthrough, allocation_is_negotiated_between_the_neighbours) {
  Rig rig("mode=live", true);
  gst_harness_add_propose_allocation_meta(rig.video, GST_VIDEO_META_API_TYPE, nullptr);
  gst_harness_add_propose_allocation_meta(rig.video, GST_VIDEO_CROP_META_API_TYPE, nullptr);
  rig.begin();
  GstCaps* caps = gst_caps_from_string("video/x-raw,format=RGB,width=16,height=8,framerate=25/1");
  GstQuery* query = gst_query_new_allocation(caps, TRUE);
  EXPECT_TRUE(gst_pad_peer_query(rig.video->srcpad, query));
  EXPECT_TRUE(gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, nullptr));
  EXPECT_TRUE(gst_query_find_allocation_meta(query, GST_VIDEO_CROP_META_API_TYPE, nullptr));
  gst_query_unref(query);
  gst_caps_unref(caps);
}

TEST(Passthrough, caps_are_those_of_the_neighbours) {
  Rig rig("mode=live", true);
  gst_harness_set_sink_caps_str(rig.video, "video/x-raw,format=NV12,width=[1,100]");
  GstPad* sink = gst_element_get_static_pad(rig.element, "sink");
  GstCaps* caps = gst_pad_query_caps(sink, nullptr);
  gchar* text = gst_caps_to_string(caps);
  EXPECT_NE(std::string(text).find("NV12"), std::string::npos) << text;
  EXPECT_EQ(std::string(text).find("RGB"), std::string::npos) << text;
  g_free(text);
  gst_caps_unref(caps);
  GstCaps* wide = gst_caps_from_string("video/x-raw,format=NV12,width=200,height=4,framerate=1/1");
  EXPECT_FALSE(gst_pad_query_accept_caps(sink, wide));
  gst_caps_set_simple(wide, "width", G_TYPE_INT, 60, nullptr);
  EXPECT_TRUE(gst_pad_query_accept_caps(sink, wide));
  gst_caps_unref(wide);
  gst_object_unref(sink);
}

TEST(Passthrough, latency_of_the_video_is_upstreams) {
  Rig rig("mode=live text-timing=window interval=1000000000 latency=500000000", true);
  gst_harness_set_upstream_latency(rig.video, 30 * GST_MSECOND);
  EXPECT_EQ(gst_harness_query_latency(rig.video), 30 * GST_MSECOND);
  EXPECT_EQ(gst_harness_query_latency(rig.text), 1530 * GST_MSECOND);
  rig.set("text-timing=arrival");
  EXPECT_EQ(gst_harness_query_latency(rig.text), 30 * GST_MSECOND);
}

TEST(Passthrough, longest_latency_does_not_run_over) {
  Rig rig("mode=live text-timing=window interval=9223372036854775807 latency=9223372036854775807",
          true);
  for (const GstClockTime upstream : {GST_CLOCK_TIME_NONE / 4, GST_CLOCK_TIME_NONE - 1}) {
    gst_harness_set_upstream_latency(rig.video, upstream);
    EXPECT_EQ(gst_harness_query_latency(rig.video), upstream);
    EXPECT_EQ(gst_harness_query_latency(rig.text), std::max<GstClockTime>(upstream, G_MAXINT64));
  }
  rig.set("interval=1 latency=0");
  gst_harness_set_upstream_latency(rig.video, 0);
  EXPECT_EQ(gst_harness_query_latency(rig.text), GST_MSECOND);
}

int latency_messages(Rig& rig) {
  int count = 0;
  while (rig.messages->next(GST_MESSAGE_LATENCY, 0) != nullptr) {
    ++count;
  }
  return count;
}

TEST(Passthrough, latency_of_the_text_is_announced_where_it_changes) {
  Rig rig("mode=live text-timing=window interval=1000000000 latency=500000000", true);
  latency_messages(rig);
  const std::vector<std::pair<const char*, int>> steps = {
      {"latency=600000000", 1},   {"latency=600000000", 0}, {"interval=2000000000", 1},
      {"text-timing=arrival", 1}, {"latency=0", 0},         {"prompt=What?", 0},
      {"text-timing=window", 1},  {"frames=2", 0}};
  for (const auto& [change, messages] : steps) {
    rig.set(change);
    EXPECT_EQ(latency_messages(rig), messages) << change;
  }
  gst_pad_set_query_function(rig.video->srcpad,
                             [](GstPad*, GstObject*, GstQuery*) -> gboolean { return FALSE; });
  rig.set("latency=700000000");
  EXPECT_EQ(latency_messages(rig), 0);
  Rig without_text("mode=live text-timing=window");
  without_text.set("latency=700000000");
  EXPECT_EQ(latency_messages(without_text), 0);
}

TEST(Passthrough, video_without_description_is_an_empty_case) {
  Rig rig("mode=recorded");
  rig.begin();
  EXPECT_TRUE(rig.eos());
  const std::vector<EventPtr> events = events_of(rig.video);
  EXPECT_EQ(GST_EVENT_TYPE(events.back().get()), GST_EVENT_EOS);
  EXPECT_TRUE(rig.messages->descriptions().empty());
}

TEST(Passthrough, flow_of_the_neighbour_comes_back) {
  Rig rig("mode=live");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  GstPad* sink = rig.video->sinkpad;
  gst_pad_set_active(sink, FALSE);
  EXPECT_EQ(rig.push(40 * GST_MSECOND), GST_FLOW_FLUSHING);
  gst_pad_set_active(sink, TRUE);
}

TEST(Passthrough, formats_without_description_still_pass_when_inactive) {
  Pipeline pipeline(
      "videotestsrc num-buffers=5 ! video/x-raw,format=v210 ! vlmdescribe active=false ! fakesink");
  EXPECT_TRUE(pipeline.run().empty());
}

}  // namespace
}  // namespace element_test
