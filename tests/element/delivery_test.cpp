// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include <atomic>

#include "element_support.h"

namespace element_test {
namespace {

TEST(Delivery, message_carries_the_whole_structure) {
  Rig rig("mode=recorded interval=1000000000 frames=2 prompt=What?");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const MessagePtr message = rig.messages->next_description();
  const GstStructure* structure = description(message.get());
  EXPECT_EQ(GST_MESSAGE_SRC(message.get()), GST_OBJECT(rig.element));
  EXPECT_EQ(text_of(structure), "What?|16x8|64,64,64|2");
  EXPECT_EQ(text_of(structure, "prompt"), "What?");
  EXPECT_EQ(text_of(structure, "finish-reason"), "stop");
  EXPECT_EQ(text_of(structure, "model"), "fake");
  EXPECT_EQ(text_of(structure, "element"), "describe");
  EXPECT_EQ(times_of(structure, "frame-pts"),
            (std::vector<guint64>{280 * GST_MSECOND, 760 * GST_MSECOND}));
  EXPECT_EQ(time_of(structure, "pts"), 0u);
  EXPECT_EQ(time_of(structure, "duration"), GST_SECOND);
  EXPECT_EQ(time_of(structure, "stream-time"), 0u);
  EXPECT_EQ(time_of(structure, "running-time"), 0u);
  EXPECT_EQ(time_of(structure, "index"), 0u);
  EXPECT_LT(time_of(structure, "latency"), kPatience);
  guint tokens = 0;
  gdouble logprob = 0;
  gboolean partial = TRUE;
  EXPECT_TRUE(gst_structure_get(structure, "tokens", G_TYPE_UINT, &tokens, "logprob", G_TYPE_DOUBLE,
                                &logprob, "partial", G_TYPE_BOOLEAN, &partial, nullptr));
  EXPECT_EQ(tokens, 4u);
  EXPECT_DOUBLE_EQ(logprob, -0.5);
  EXPECT_FALSE(partial);
  EXPECT_FALSE(gst_structure_has_field(structure, "utc"));
  EXPECT_FALSE(gst_structure_has_field(structure, "token-ids"));
}

TEST(Delivery, details_are_added_to_messages_alone) {
  Rig rig("mode=recorded interval=100000000 details=true");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  const MessagePtr message = rig.messages->next_description();
  const GstStructure* structure = description(message.get());
  const GValue* ids = gst_structure_get_value(structure, "token-ids");
  ASSERT_NE(ids, nullptr);
  ASSERT_EQ(gst_value_array_get_size(ids), 4u);
  EXPECT_EQ(g_value_get_int64(gst_value_array_get_value(ids, 3)), 2);
  EXPECT_EQ(gst_value_array_get_size(gst_structure_get_value(structure, "logprobs")), 4u);
  EXPECT_FALSE(gst_structure_has_field(structure, "top-logprobs"));
  EXPECT_EQ(text_of(structure, "final-prompt"), "USER: <image>\nDescribe the scene.");
  gint64 prompt_tokens = 0;
  GstStructure* timing = nullptr;
  gdouble prefill = 0;
  ASSERT_TRUE(gst_structure_get(structure, "prompt-tokens", G_TYPE_INT64, &prompt_tokens, "timing",
                                GST_TYPE_STRUCTURE, &timing, nullptr));
  EXPECT_EQ(prompt_tokens, 12);
  EXPECT_TRUE(gst_structure_get_double(timing, "prefill-ms", &prefill));
  EXPECT_EQ(prefill, 10);
  gst_structure_free(timing);
  rig.buffers();
  ASSERT_EQ(rig.push(200 * GST_MSECOND), GST_FLOW_OK);
  const std::vector<BufferPtr> buffers = rig.buffers();
  EXPECT_FALSE(gst_structure_has_field(meta_of(buffers[0].get()), "token-ids"));
}

TEST(Delivery, details_tell_the_likeliest_tokens_where_asked) {
  Rig rig("mode=recorded interval=100000000 details=true top-logprobs=3");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  const MessagePtr message = rig.messages->next_description();
  const GValue* tokens = gst_structure_get_value(description(message.get()), "top-logprobs");
  ASSERT_NE(tokens, nullptr);
  ASSERT_EQ(gst_value_array_get_size(tokens), 4u);
  const GValue* choices = gst_value_array_get_value(tokens, 1);
  ASSERT_EQ(gst_value_array_get_size(choices), 3u);
  const GstStructure* choice = gst_value_get_structure(gst_value_array_get_value(choices, 2));
  gint64 id = 0;
  gdouble logprob = 0;
  ASSERT_TRUE(gst_structure_get(choice, "id", G_TYPE_INT64, &id, "logprob", G_TYPE_DOUBLE, &logprob,
                                nullptr));
  EXPECT_EQ(id, 8);
  EXPECT_EQ(logprob, -1);
  EXPECT_EQ(text_of(choice, "text"), "8");
}

TEST(Delivery, latest_meta_is_the_newest_description) {
  Rig rig("mode=recorded interval=100000000");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  EXPECT_EQ(meta_of(rig.buffers()[0].get()), nullptr);
  for (guint64 window = 0; window < 3; ++window) {
    ASSERT_EQ(rig.push_range((window * 100 + 60) * GST_MSECOND, (window * 100 + 101) * GST_MSECOND),
              GST_FLOW_OK);
    ASSERT_NE(rig.messages->next_description(), nullptr);
    rig.buffers();
    ASSERT_EQ(rig.push((window * 100 + 140) * GST_MSECOND), GST_FLOW_OK);
    const std::vector<BufferPtr> buffers = rig.buffers();
    EXPECT_EQ(time_of(meta_of(buffers[0].get()), "index"), window);
  }
}

TEST(Delivery, no_meta_while_nothing_is_described) {
  Rig rig("mode=recorded interval=100000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 121 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_NE(rig.messages->next_description(), nullptr);
  const auto described = [&](GstClockTime pts) {
    rig.buffers();
    EXPECT_EQ(rig.push(pts), GST_FLOW_OK);
    return meta_of(rig.buffers()[0].get()) != nullptr;
  };
  EXPECT_TRUE(described(160 * GST_MSECOND));
  rig.set("active=false");
  EXPECT_FALSE(described(200 * GST_MSECOND));
  rig.set("active=true");
  EXPECT_FALSE(described(240 * GST_MSECOND));
}

TEST(Delivery, no_meta_where_none_is_wanted) {
  Rig rig("mode=recorded interval=100000000 meta-policy=none");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_NE(rig.messages->next_description(), nullptr);
  ASSERT_EQ(rig.push(200 * GST_MSECOND), GST_FLOW_OK);
  for (const BufferPtr& buffer : rig.buffers()) {
    EXPECT_EQ(meta_of(buffer.get()), nullptr);
  }
}

TEST(Delivery, elements_in_series_keep_each_others_meta) {
  Pipeline pipeline(
      "videotestsrc num-buffers=100 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe name=a prompt=first interval=500000000 max-pending=1 ! "
      "vlmdescribe name=b prompt=second interval=500000000 max-pending=1 ! "
      "videoconvert ! video/x-raw,format=RGB ! queue ! fakesink name=sink enable-last-sample=true");
  pipeline.run();
  GstSample* sample = nullptr;
  g_object_get(pipeline["sink"].get(), "last-sample", &sample, nullptr);
  ASSERT_NE(sample, nullptr);
  GstBuffer* buffer = gst_sample_get_buffer(sample);
  EXPECT_EQ(text_of(meta_of(buffer, "a"), "prompt"), "first");
  EXPECT_EQ(text_of(meta_of(buffer, "b"), "prompt"), "second");
  gst_sample_unref(sample);
}

TEST(Delivery, meta_survives_coding) {
  Pipeline pipeline(
      "videotestsrc num-buffers=50 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe interval=200000000 max-pending=1 ! jpegenc ! jpegdec ! videoscale ! "
      "video/x-raw,width=64 ! fakesink name=sink enable-last-sample=true");
  pipeline.run();
  GstSample* sample = nullptr;
  g_object_get(pipeline["sink"].get(), "last-sample", &sample, nullptr);
  EXPECT_NE(meta_of(gst_sample_get_buffer(sample)), nullptr);
  gst_sample_unref(sample);
}

TEST(Delivery, last_description_notifies) {
  Rig rig("mode=recorded interval=100000000");
  std::atomic<int> notified = 0;
  g_signal_connect(rig.element, "notify::last-description",
                   G_CALLBACK(+[](GObject*, GParamSpec*, std::atomic<int>* count) { ++*count; }),
                   &notified);
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 300 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(notified, 3);
  gchar* text = nullptr;
  g_object_get(rig.element, "last-description", &text, nullptr);
  EXPECT_STREQ(text, "Describe the scene.|16x8|64,64,64|1");
  g_free(text);
}

TEST(Delivery, partial_texts_grow) {
  Rig rig("mode=recorded interval=1000000000 partial=true model=fake:words,text=all");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  std::vector<std::string> texts;
  gboolean partial = TRUE;
  for (const MessagePtr& message : rig.messages->descriptions()) {
    texts.push_back(text_of(description(message.get())));
    gst_structure_get_boolean(description(message.get()), "partial", &partial);
    EXPECT_EQ(partial, texts.back() != "all");
  }
  EXPECT_FALSE(partial);
  ASSERT_GE(texts.size(), 2u);
  EXPECT_EQ(texts.front().substr(0, 3), "one");
}

TEST(Delivery, prompt_changes_with_the_next_window) {
  Rig rig("mode=recorded interval=1000000000 prompt=first");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  rig.set("prompt=second max-new-tokens=3");
  ASSERT_EQ(rig.push_range(40 * GST_MSECOND, 2 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(text_of(description(found[0].get()), "prompt"), "first");
  EXPECT_EQ(text_of(description(found[1].get()), "prompt"), "second");
  EXPECT_EQ(text_of(description(found[1].get())).substr(0, 6), "second");
}

TEST(Delivery, prompt_comes_with_events_from_both_sides) {
  Rig rig("mode=recorded interval=100000000");
  rig.begin();
  const auto event = [](GstEventType type, const char* prompt) {
    return gst_event_new_custom(
        type, gst_structure_new("vlm-prompt", "prompt", G_TYPE_STRING, prompt, nullptr));
  };
  rig.push_event(event(GST_EVENT_CUSTOM_DOWNSTREAM, "from above"));
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  gst_harness_push_upstream_event(rig.video, event(GST_EVENT_CUSTOM_UPSTREAM, "from below"));
  ASSERT_EQ(rig.push_range(40 * GST_MSECOND, 200 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(text_of(description(found[0].get()), "prompt"), "from above");
  EXPECT_EQ(text_of(description(found[1].get()), "prompt"), "from below");
  gchar* prompt = nullptr;
  g_object_get(rig.element, "prompt", &prompt, nullptr);
  EXPECT_STREQ(prompt, "from below");
  g_free(prompt);
}

TEST(Delivery, describe_now_does_not_wait_for_the_window) {
  Rig rig("mode=recorded interval=10000000000 model=fake:");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_OK);
  ASSERT_EQ(stat(rig.element, "windows"), 0u);
  g_signal_emit_by_name(rig.element, "describe-now");
  // Without the model being loaded yet, the next frame is taken.
  ASSERT_NE(rig.messages->next(GST_MESSAGE_PROGRESS), nullptr);
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  ASSERT_EQ(rig.push(GST_SECOND), GST_FLOW_OK);
  const MessagePtr message = rig.messages->next_description();
  EXPECT_GE(times_of(description(message.get()), "frame-pts").at(0), 960 * GST_MSECOND);
  g_signal_emit_by_name(rig.element, "describe-now");
  EXPECT_EQ(times_of(description(rig.messages->next_description().get()), "frame-pts").at(0),
            GST_SECOND);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 1u);
  EXPECT_EQ(stat(rig.element, "windows"), 1u);
}

TEST(Delivery, describe_now_is_forgotten_where_nothing_is_to_be_described) {
  Rig rig("mode=recorded interval=1000000000 active=false");
  rig.begin();
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  g_signal_emit_by_name(rig.element, "describe-now");
  ASSERT_EQ(rig.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  rig.set("active=true");
  ASSERT_EQ(rig.push_range(200 * GST_MSECOND, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<MessagePtr> found = rig.messages->descriptions();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_FALSE(gst_structure_has_field(description(found[0].get()), "extra"));
}

TEST(Delivery, stats_come_as_messages) {
  Rig rig("mode=recorded interval=100000000 stats-interval=20000000");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 400 * GST_MSECOND), GST_FLOW_OK);
  guint64 described = 0;
  while (described < 3) {
    const MessagePtr message = rig.messages->next(GST_MESSAGE_ELEMENT);
    ASSERT_NE(message, nullptr);
    const GstStructure* structure = gst_message_get_structure(message.get());
    if (gst_structure_has_name(structure, "vlm-stats")) {
      described = time_of(structure, "described");
      EXPECT_EQ(time_of(structure, "frames"), stat(rig.element, "frames"));
    }
  }
  GstStructure* stats = nullptr;
  g_object_get(rig.element, "stats", &stats, nullptr);
  gdouble rate = 0;
  EXPECT_TRUE(gst_structure_get_double(stats, "tokens-per-second", &rate));
  EXPECT_DOUBLE_EQ(rate, 200);
  EXPECT_LE(time_of(stats, "latency-mean"), time_of(stats, "latency-max"));
  EXPECT_LE(time_of(stats, "latency-p95"), time_of(stats, "latency-max"));
  gst_structure_free(stats);
}

// The longest period that may be set is one that never ends.
TEST(Delivery, stats_of_the_longest_period_do_not_come) {
  Rig rig("mode=recorded interval=100000000 stats-interval=9223372036854775807");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 400 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  while (const MessagePtr message = rig.messages->next(GST_MESSAGE_ELEMENT, 0)) {
    ASSERT_FALSE(gst_structure_has_name(gst_message_get_structure(message.get()), "vlm-stats"));
  }
}

TEST(Delivery, loading_is_reported_as_progress) {
  Rig rig("mode=recorded model=fake:load=300");
  std::vector<GstProgressType> types;
  while (types.empty() || types.back() != GST_PROGRESS_TYPE_COMPLETE) {
    const MessagePtr message = rig.messages->next(GST_MESSAGE_PROGRESS);
    ASSERT_NE(message, nullptr);
    gchar* code = nullptr;
    gst_message_parse_progress(message.get(), &types.emplace_back(), &code, nullptr);
    EXPECT_STREQ(code, "vlm-load");
    g_free(code);
  }
  EXPECT_EQ(types.front(), GST_PROGRESS_TYPE_START);
  EXPECT_GE(types.size(), 3u);
}

TEST(Delivery, policy_of_the_metadata_holds_until_ready) {
  Rig rig("mode=recorded interval=10000000000 meta-policy=none");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 400 * GST_MSECOND), GST_FLOW_OK);
  rig.set("meta-policy=exact");
  ASSERT_EQ(rig.push_range(400 * GST_MSECOND, 800 * GST_MSECOND), GST_FLOW_OK);
  EXPECT_EQ(rig.buffers().size(), 20u);
}

// Of a camera that is described for weeks nothing may pile up, whatever becomes of its frames.
TEST(Delivery, memory_does_not_grow_with_the_windows) {
  constexpr int kWindows = 20000;  // each left a kilobyte once
  for (const char* policy : {"none", "latest", "exact"}) {
    Rig rig(std::string("mode=recorded interval=40000000 meta-policy=") + policy);
    rig.begin();
    double before = 0;
    for (int window = 0; window < 2 * kWindows; window += 50) {
      if (window == kWindows) {
        before = resident_mib();
      }
      ASSERT_EQ(rig.push_range(window * 40 * GST_MSECOND, (window + 50) * 40 * GST_MSECOND),
                GST_FLOW_OK);
      rig.buffers();
      rig.messages->descriptions();
    }
    EXPECT_LT(resident_mib() - before, 8) << policy;
  }
}

// Messages that would follow each other at once leave time for texts, and for a stop.
TEST(Delivery, shortest_stats_interval_holds_up_nothing) {
  Rig rig("mode=recorded interval=100000000 stats-interval=1");
  const gint64 before = g_get_monotonic_time();
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 500 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  ASSERT_EQ(gst_element_set_state(rig.element, GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  const gint64 passed_us = g_get_monotonic_time() - before;
  int descriptions = 0;
  gint64 stats = 0;
  while (const MessagePtr message = rig.messages->next(GST_MESSAGE_ELEMENT, 0)) {
    stats += gst_message_has_name(message.get(), "vlm-stats") != FALSE ? 1 : 0;
    descriptions += description(message.get()) != nullptr ? 1 : 0;
  }
  EXPECT_EQ(descriptions, 5);
  EXPECT_LE(stats, passed_us / 1000 + 1000);  // those since NULL
}

}  // namespace
}  // namespace element_test
