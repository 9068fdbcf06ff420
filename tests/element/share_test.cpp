// SPDX-License-Identifier: LGPL-2.1-or-later

// Many elements beside each other: one model, and nobody's business but one's own.

#include <gst/controller/controller.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "element_support.h"

namespace element_test {
namespace {

constexpr int kMany = 16;

std::string branches(int count) {
  std::string line =
      "videotestsrc num-buffers=50 ! video/x-raw,width=32,height=16,framerate=25/1 ! tee name=t ";
  for (int i = 0; i < count; ++i) {
    line += "t. ! queue ! vlmdescribe model=fake:many interval=200000000 ! fakesink ";
  }
  return line;
}

TEST(Share, sixteen_in_one_pipeline_and_in_sixteen_take_one_engine) {
  {
    std::vector<std::unique_ptr<Pipeline>> others;
    for (int i = 0; i < kMany; ++i) {
      others.push_back(std::make_unique<Pipeline>(branches(1)));
      ASSERT_TRUE(others.back()->play());
    }
    Pipeline together(branches(kMany));
    std::map<std::string, int> described;
    for (const MessagePtr& message : together.run()) {
      ++described[text_of(description(message.get()), "element")];
    }
    EXPECT_EQ(described.size(), static_cast<size_t>(kMany));
    for (const auto& [name, count] : described) {
      EXPECT_EQ(count, 10) << name;
    }
    for (const auto& other : others) {
      for (int i = 0; i < 10; ++i) {
        ASSERT_NE(other->messages.next_description(), nullptr);
      }
    }
    EXPECT_EQ(opened("fake:many"), 1);
  }
  EXPECT_TRUE(eventually([] { return counts().engines == 0; }));
}

TEST(Share, one_streams_error_leaves_others_alone) {
  Rig broken("mode=recorded interval=100000000 model=fake:neighbours");
  Rig sound("mode=recorded interval=100000000 model=fake:neighbours");
  broken.begin();
  sound.begin();
  ASSERT_EQ(sound.push_range(0, 200 * GST_MSECOND), GST_FLOW_OK);
  // Too few bytes for a picture; it is looked at when the next frame ends its window.
  EXPECT_EQ(gst_harness_push(broken.video, solid_frame(7, 0, GST_SECOND).release()), GST_FLOW_OK);
  EXPECT_EQ(broken.push(GST_SECOND), GST_FLOW_ERROR);
  EXPECT_NE(broken.messages->next_error(), "");
  ASSERT_EQ(sound.push_range(200 * GST_MSECOND, GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(sound.eos());
  EXPECT_EQ(sound.messages->descriptions().size(), 10u);
  EXPECT_EQ(opened("fake:neighbours"), 1);
}

/// An application that has a model loaded and gives it to whoever asks.
struct Supplier {
  GstContext* context = nullptr;
  std::atomic<int> asked = 0;
  std::atomic<int> loads = 0;

  static GstBusSyncReply answer(GstBus*, GstMessage* message, gpointer data) {
    auto* self = static_cast<Supplier*>(data);
    const gchar* type = nullptr;
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_NEED_CONTEXT &&
        gst_message_parse_context_type(message, &type) && g_strcmp0(type, "vlm.engine") == 0) {
      ++self->asked;
      gst_element_set_context(GST_ELEMENT(GST_MESSAGE_SRC(message)), self->context);
    }
    self->loads += GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS ? 1 : 0;
    return GST_BUS_PASS;
  }
};

TEST(Share, application_supplies_a_model_that_it_has_loaded) {
  Rig loaded("mode=recorded model=fake:supplied");
  const MessagePtr message = loaded.messages->next(GST_MESSAGE_HAVE_CONTEXT);
  ASSERT_NE(message, nullptr);
  Supplier supplier;
  gst_message_parse_have_context(message.get(), &supplier.context);
  // As gst-launch -m and logs do.
  gchar* written = gst_structure_to_string(gst_context_get_structure(supplier.context));
  EXPECT_NE(std::string(written).find("engine=(GstVlmEngine)"), std::string::npos) << written;
  g_free(written);
  Pipeline pipeline(
      "videotestsrc num-buffers=5 ! video/x-raw,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe model=fake:supplied interval=100000000 ! "
      "vlmdescribe model=fake:supplied interval=100000000 ! fakesink");
  GstBus* bus = gst_element_get_bus(pipeline.pipeline);
  gst_bus_set_sync_handler(bus, Supplier::answer, &supplier, nullptr);
  EXPECT_EQ(pipeline.run().size(), 4u);
  gst_bus_set_sync_handler(bus, nullptr, nullptr, nullptr);
  gst_object_unref(bus);
  gst_context_unref(supplier.context);
  EXPECT_GE(supplier.asked, 1);
  EXPECT_EQ(supplier.loads, 0);
  EXPECT_EQ(opened("fake:supplied"), 1);
}

/// A branch behind `tee` that is added to a playing pipeline and taken out again.
class Branch {
 public:
  Branch(Pipeline& pipeline, GstElement* tee) : pipeline_(pipeline), tee_(tee) {
    GError* error = nullptr;
    bin_ = gst_parse_bin_from_description(
        "queue ! vlmdescribe name=extra interval=100000000 ! fakesink async=false "
        "extra.text ! fakesink async=false",
        TRUE, &error);
    EXPECT_EQ(error, nullptr);
    gst_bin_add(GST_BIN(pipeline_.pipeline), bin_);
    EXPECT_TRUE(gst_element_sync_state_with_parent(bin_));
    pad_ = gst_element_request_pad_simple(tee_, "src_%u");
    GstPad* sink = gst_element_get_static_pad(bin_, "sink");
    EXPECT_EQ(gst_pad_link(pad_, sink), GST_PAD_LINK_OK);
    gst_object_unref(sink);
  }

  ~Branch() {
    // The tee's own thread unlinks, between two buffers.
    std::atomic<bool> unlinked = false;
    gst_pad_add_probe(
        pad_, GST_PAD_PROBE_TYPE_IDLE,
        [](GstPad* pad, GstPadProbeInfo*, gpointer done) {
          GstPad* peer = gst_pad_get_peer(pad);
          gst_pad_unlink(pad, peer);
          gst_object_unref(peer);
          *static_cast<std::atomic<bool>*>(done) = true;
          return GST_PAD_PROBE_REMOVE;
        },
        &unlinked, nullptr);
    EXPECT_TRUE(eventually([&] { return unlinked.load(); }));
    gst_element_release_request_pad(tee_, pad_);
    gst_object_unref(pad_);
    gst_object_ref(bin_);
    gst_bin_remove(GST_BIN(pipeline_.pipeline), bin_);
    EXPECT_EQ(gst_element_set_state(bin_, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    gst_object_unref(bin_);
  }

  Branch(const Branch&) = delete;
  Branch& operator=(const Branch&) = delete;

 private:
  Pipeline& pipeline_;
  GstElement* tee_;
  GstElement* bin_ = nullptr;
  GstPad* pad_ = nullptr;
};

TEST(Share, elements_come_and_go_while_playing) {
  Pipeline pipeline(
      "videotestsrc is-live=true ! video/x-raw,width=32,height=16,framerate=50/1 ! tee name=t "
      "t. ! queue ! vlmdescribe name=stays interval=100000000 ! fakesink");
  ASSERT_TRUE(pipeline.play());
  const ElementPtr tee = pipeline["t"];
  const ElementPtr stays = pipeline["stays"];
  const auto described_by = [&](const char* name) {
    while (const MessagePtr message = pipeline.messages.next_description()) {
      if (text_of(description(message.get()), "element") == name) {
        return true;
      }
    }
    return false;
  };
  for (int round = 0; round < 5; ++round) {
    const Branch branch(pipeline, tee.get());
    EXPECT_TRUE(described_by("extra"));
  }
  const guint64 before = stat(stays.get(), "described");
  EXPECT_TRUE(eventually([&] { return stat(stays.get(), "described") > before + 2; }));
  EXPECT_EQ(pipeline.messages.next(GST_MESSAGE_ERROR, 0), nullptr);
}

// GstController goes by stream time, whatever the timestamps of buffers are.
TEST(Share, properties_follow_a_controller) {
  Rig rig("mode=recorded interval=1000000000");
  GstControlSource* source = gst_interpolation_control_source_new();
  g_object_set(source, "mode", GST_INTERPOLATION_MODE_NONE, nullptr);
  auto* values = GST_TIMED_VALUE_CONTROL_SOURCE(source);
  gst_timed_value_control_source_set(values, 0, 1);
  gst_timed_value_control_source_set(values, GST_SECOND, 0);
  gst_timed_value_control_source_set(values, 3 * GST_SECOND, 1);
  ASSERT_TRUE(gst_object_add_control_binding(
      GST_OBJECT(rig.element),
      gst_direct_control_binding_new_absolute(GST_OBJECT(rig.element), "active", source)));
  gst_object_unref(source);
  rig.begin();
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = 10 * GST_SECOND;
  ASSERT_TRUE(rig.push_event(gst_event_new_segment(&segment)));
  ASSERT_EQ(rig.push_range(10 * GST_SECOND, 15 * GST_SECOND), GST_FLOW_OK);
  ASSERT_TRUE(rig.eos());
  std::vector<guint64> seconds;
  for (const MessagePtr& message : rig.messages->descriptions()) {
    seconds.push_back(time_of(description(message.get()), "stream-time") / GST_SECOND);
  }
  EXPECT_EQ(seconds, (std::vector<guint64>{0, 3, 4}));
}

}  // namespace
}  // namespace element_test
