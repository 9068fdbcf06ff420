// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "element_support.h"

namespace element_test {
namespace {

/// A described error: where it belongs and a word its sentence must have.
struct Case {
  const char* name;
  const char* properties;
  GQuark (*domain)();
  gint code;
  const char* word;
};

std::ostream& operator<<(std::ostream& out, const Case& one) {
  return out << one.name;
}

class RefusedAtReady : public ::testing::TestWithParam<Case> {};

TEST_P(RefusedAtReady, names_cause_and_domain) {
  const Case& one = GetParam();
  Pipeline pipeline(std::string("videotestsrc ! vlmdescribe ") + one.properties + " ! fakesink");
  EXPECT_EQ(pipeline.set_state(GST_STATE_READY), GST_STATE_CHANGE_FAILURE);
  GQuark domain = 0;
  gint code = 0;
  const std::string text = pipeline.messages.next_error(&domain, &code);
  EXPECT_NE(text.find(one.word), std::string::npos) << text;
  EXPECT_EQ(domain, one.domain());
  EXPECT_EQ(code, one.code);
}

INSTANTIATE_TEST_SUITE_P(
    Causes, RefusedAtReady,
    ::testing::Values(Case{"no_such_model", "model=/nowhere/at/all", gst_resource_error_quark,
                           GST_RESOURCE_ERROR_NOT_FOUND, "/nowhere/at/all"},
                      Case{"broken_model", "model=fake:fail-check", gst_resource_error_quark,
                           GST_RESOURCE_ERROR_READ, "broken"},
                      Case{"empty_prompt", "prompt=\"\"", gst_library_error_quark,
                           GST_LIBRARY_ERROR_SETTINGS, "prompt"},
                      Case{"option_out_of_range", "top-p=0", gst_library_error_quark,
                           GST_LIBRARY_ERROR_SETTINGS, "top-p"},
                      Case{"several_frames_of_no_interval", "interval=0 frames=2",
                           gst_library_error_quark, GST_LIBRARY_ERROR_SETTINGS, "interval"}),
    [](const ::testing::TestParamInfo<Case>& one) { return one.param.name; });

TEST(Error, missing_engine_library_is_named_and_the_plugin_still_loads) {
  // In a process of its own: this one has opened the fake engine, which is kept.
  EXPECT_EXIT(
      {
        setenv("VLM_ENGINE_LIBRARY", "/nowhere/libvlm.so.0", 1);
        Pipeline pipeline("videotestsrc ! vlmdescribe ! fakesink");
        const bool refused = pipeline.set_state(GST_STATE_READY) == GST_STATE_CHANGE_FAILURE;
        GQuark domain = 0;
        gint code = 0;
        const std::string text = pipeline.messages.next_error(&domain, &code);
        const bool named = text.find("/nowhere/libvlm.so.0") != std::string::npos &&
                           text.find("VLM_ENGINE_LIBRARY") != std::string::npos;
        std::_Exit(refused && named && domain == GST_LIBRARY_ERROR && code == GST_LIBRARY_ERROR_INIT
                       ? 0
                       : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(Error, library_that_is_no_engine_is_refused) {
  EXPECT_EXIT(
      {
        setenv("VLM_ENGINE_LIBRARY", "libgstreamer-1.0.so.0", 1);
        Pipeline pipeline("videotestsrc ! vlmdescribe ! fakesink");
        const bool refused = pipeline.set_state(GST_STATE_READY) == GST_STATE_CHANGE_FAILURE;
        const std::string text = pipeline.messages.next_error();
        std::_Exit(refused && text.find("not an engine") != std::string::npos ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(Error, failure_while_loading_stops_a_recording) {
  Rig rig("mode=recorded interval=100000000 model=fake:load=30,fail-load");
  rig.begin();
  EXPECT_EQ(rig.push_range(0, GST_SECOND), GST_FLOW_ERROR);
  GQuark domain = 0;
  EXPECT_EQ(rig.messages->next_error(&domain), "A tensor is missing.");
  EXPECT_EQ(domain, GST_RESOURCE_ERROR);
}

TEST(Error, load_and_window_failures_can_be_told_apart) {
  Rig rig("mode=recorded model=fake:load=100,fail-load");
  const MessagePtr message = rig.messages->next(GST_MESSAGE_ERROR);
  ASSERT_NE(message, nullptr);
  const GstStructure* details = nullptr;
  gst_message_parse_error_details(message.get(), &details);
  ASSERT_NE(details, nullptr);
  EXPECT_EQ(text_of(details, "stage"), "load");
  EXPECT_EQ(text_of(details, "kind"), "invalid-model");
}

TEST(Error, failed_window_stops_by_default) {
  Rig rig("mode=recorded interval=1000000000 max-pending=1 model=fake:fail-every=2");
  rig.begin();
  EXPECT_EQ(rig.push_range(0, 20 * GST_SECOND), GST_FLOW_ERROR);
  GQuark domain = 0;
  gint code = 0;
  EXPECT_EQ(rig.messages->next_error(&domain, &code), "The fake engine failed.");
  EXPECT_EQ(domain, GST_LIBRARY_ERROR);
  EXPECT_EQ(code, GST_LIBRARY_ERROR_SETTINGS);
  EXPECT_EQ(stat(rig.element, "failed"), 1u);
}

TEST(Error, more_frames_than_the_context_holds_are_refused_before_they_are_kept) {
  const int before = counts().submitted;
  const std::string many = "mode=recorded interval=400000000 frames=10 model=fake:tokens=";
  Rig refused(many + "40");
  refused.begin();
  EXPECT_EQ(refused.push_range(0, GST_SECOND), GST_FLOW_ERROR);
  EXPECT_EQ(refused.messages->next_error(),
            "frames=10 take at least 40 tokens, but the model's context has 40; set fewer frames.");
  EXPECT_EQ(counts().submitted, before);
  Rig skipped(many + "40 on-error=skip");
  skipped.begin();
  EXPECT_EQ(skipped.push_range(0, GST_SECOND), GST_FLOW_OK);
  EXPECT_TRUE(skipped.eos());
  EXPECT_EQ(stat(skipped.element, "failed"), 3u);
  Rig taken(many + "41");
  taken.begin();
  EXPECT_EQ(taken.push_range(0, GST_SECOND), GST_FLOW_OK);
  EXPECT_TRUE(taken.eos());
  EXPECT_EQ(stat(taken.element, "described"), 3u);
}

TEST(Error, failed_window_can_be_skipped) {
  Rig rig("mode=recorded interval=1000000000 on-error=skip model=fake:fail-every=2");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 6 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  int warnings = 0;
  while (rig.messages->next(GST_MESSAGE_WARNING, 0) != nullptr) {
    ++warnings;
  }
  EXPECT_EQ(warnings, 3);
  EXPECT_EQ(stat(rig.element, "failed"), 3u);
  EXPECT_EQ(stat(rig.element, "described"), 3u);
}

TEST(Error, lost_device_is_never_skipped) {
  Rig rig("mode=recorded interval=1000000000 on-error=skip model=fake:fail-every=1,error=device");
  rig.begin();
  EXPECT_EQ(rig.push_range(0, 20 * GST_SECOND), GST_FLOW_ERROR);
  GQuark domain = 0;
  EXPECT_EQ(rig.messages->next_error(&domain), "The fake engine failed.");
  EXPECT_EQ(domain, GST_RESOURCE_ERROR);
  EXPECT_EQ(gst_element_set_state(rig.element, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
}

TEST(Error, want_of_memory_for_one_description_can_be_skipped) {
  const std::string line = "mode=recorded interval=1000000000 model=fake:fail-every=2,error=memory";
  Rig skipping(line + " on-error=skip");
  skipping.begin();
  ASSERT_EQ(skipping.push_range(0, 6 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(skipping.eos());
  EXPECT_EQ(stat(skipping.element, "failed"), 3u);
  EXPECT_EQ(stat(skipping.element, "described"), 3u);
  const MessagePtr warning = skipping.messages->next(GST_MESSAGE_WARNING, 0);
  ASSERT_NE(warning, nullptr);
  const GstStructure* details = nullptr;
  gst_message_parse_warning_details(warning.get(), &details);
  ASSERT_NE(details, nullptr);
  EXPECT_EQ(text_of(details, "kind"), "out-of-memory");

  Rig failing(line + " max-pending=1");
  failing.begin();
  EXPECT_EQ(failing.push_range(0, 20 * GST_SECOND), GST_FLOW_ERROR);
  GQuark domain = 0;
  EXPECT_EQ(failing.messages->next_error(&domain), "The fake engine failed.");
  EXPECT_EQ(domain, GST_RESOURCE_ERROR);
}

// In each mode, with video that is held and with an end that waits.
TEST(Error, lost_device_stops_every_element_of_the_engine) {
  const std::string lost = "interval=200000000 model=fake:lost,fail-every=1,error=device mode=";
  Rig recorded(lost + "recorded max-pending=64");
  Rig exact(lost + "recorded meta-policy=exact max-pending=64");
  Rig live(lost + "live");
  Rig waiting(lost + "recorded max-pending=64", true);
  close_gate();
  std::thread ender;
  for (Rig* rig : {&recorded, &exact, &live, &waiting}) {
    ASSERT_TRUE(
        eventually([&] { return rig->messages->next(GST_MESSAGE_HAVE_CONTEXT) != nullptr; }));
    rig->begin();
    ASSERT_EQ(rig->push_range(0, GST_SECOND), GST_FLOW_OK);
    ASSERT_TRUE(eventually([&] { return stat(rig->element, "waiting") > 0; }));
  }
  EXPECT_EQ(opened("fake:lost,fail-every=1,error=device"), 1);
  ender = std::thread([&] { waiting.eos(); });
  open_gate();
  ender.join();
  for (Rig* rig : {&recorded, &exact, &live, &waiting}) {
    GQuark domain = 0;
    EXPECT_EQ(rig->messages->next_error(&domain), "The fake engine failed.");
    EXPECT_EQ(domain, GST_RESOURCE_ERROR);
    EXPECT_EQ(rig->push(GST_SECOND), rig == &waiting ? GST_FLOW_EOS : GST_FLOW_ERROR);
    EXPECT_EQ(gst_element_set_state(rig->element, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  }
}

TEST(Error, failed_window_does_not_hold_exact_video) {
  Rig rig(
      "mode=recorded interval=1000000000 meta-policy=exact on-error=skip model=fake:fail-every=2");
  rig.begin();
  ASSERT_EQ(rig.push_range(0, 4 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(rig.buffers().size(), 100u);
}

TEST(Error, failed_description_beside_the_windows_takes_none_of_their_metadata) {
  Rig rig(
      "mode=recorded interval=1000000000 meta-policy=exact on-error=skip model=fake:fail-every=2");
  rig.begin();
  ASSERT_TRUE(
      eventually([&] { return rig.messages->next(GST_MESSAGE_HAVE_CONTEXT, 0) != nullptr; }));
  ASSERT_EQ(rig.push_range(0, 400 * GST_MSECOND), GST_FLOW_OK);
  g_signal_emit_by_name(rig.element, "describe-now");
  const MessagePtr extra = rig.messages->next_description();
  EXPECT_TRUE(gst_structure_has_field(description(extra.get()), "extra"));
  g_signal_emit_by_name(rig.element, "describe-now");
  ASSERT_NE(rig.messages->next(GST_MESSAGE_WARNING), nullptr);
  ASSERT_EQ(rig.push_range(400 * GST_MSECOND, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  const std::vector<BufferPtr> buffers = rig.buffers();
  ASSERT_EQ(buffers.size(), 25u);
  for (const BufferPtr& buffer : buffers) {
    EXPECT_NE(gst_buffer_get_custom_meta(buffer.get(), "vlm-description"), nullptr);
  }
}

TEST(Error, buffer_of_no_bytes_fails_its_window_only) {
  Rig rig("mode=recorded interval=40000000 on-error=skip");
  rig.begin();
  ASSERT_EQ(rig.push(0), GST_FLOW_OK);
  BufferPtr empty(gst_buffer_new());
  GST_BUFFER_PTS(empty.get()) = 40 * GST_MSECOND;
  GST_BUFFER_DURATION(empty.get()) = 40 * GST_MSECOND;
  ASSERT_EQ(gst_harness_push(rig.video, empty.release()), GST_FLOW_OK);
  ASSERT_EQ(rig.push(80 * GST_MSECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  EXPECT_EQ(stat(rig.element, "failed"), 1u);
  EXPECT_EQ(stat(rig.element, "described"), 2u);
  EXPECT_EQ(rig.buffers().size(), 3u);
}

TEST(Error, buffer_that_is_too_small_is_an_error) {
  Rig rig("mode=recorded interval=0");
  rig.begin();
  EXPECT_EQ(gst_harness_push(rig.video, solid_frame(100, 0, 40 * GST_MSECOND).release()),
            GST_FLOW_ERROR);
  const std::string text = rig.messages->next_error();
  EXPECT_NE(text.find("100 bytes"), std::string::npos) << text;
  EXPECT_NE(text.find("384 bytes"), std::string::npos) << text;
}

TEST(Error, caps_without_a_meaning_are_named_with_a_cure) {
  Rig rig("mode=recorded interval=0");
  rig.begin(std::string(kFrameCaps) + ",interlace-mode=alternate");
  const std::string text = rig.messages->next_error();
  EXPECT_NE(text.find("alternate; correct the element or caps filter"), std::string::npos) << text;
}

TEST(Error, element_runs_again_after_an_error) {
  Rig rig("mode=recorded interval=0");
  rig.begin();
  ASSERT_EQ(gst_harness_push(rig.video, solid_frame(100, 0, 40 * GST_MSECOND).release()),
            GST_FLOW_ERROR);
  ASSERT_EQ(gst_element_set_state(rig.element, GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  ASSERT_NE(gst_element_set_state(rig.element, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  rig.begin();
  EXPECT_EQ(rig.push(0), GST_FLOW_OK);
  EXPECT_TRUE(rig.eos());
  EXPECT_EQ(rig.messages->descriptions().size(), 1u);
}

}  // namespace
}  // namespace element_test
