// SPDX-License-Identifier: LGPL-2.1-or-later

// Stopping a pipeline while the real engine is at work: it stops, and nothing of it stays. How long
// that takes is printed and decides nothing.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "element_support.h"

namespace element_test {
namespace {

constexpr int kTries = 10;
/// libtorch takes its time to load on a busy machine.
constexpr GstClockTime kLong = 200 * GST_SECOND;
const std::string kVideo = "video/x-raw,width=64,height=48,framerate=25/1 ! ";
/// A text of so many tokens takes a second or more.
const std::string kDescribe =
    "vlmdescribe name=describe interval=1000000000 max-pending=2 partial=true min-new-tokens=800 "
    "max-new-tokens=800 ! fakesink";

/// Waits for a message of this kind on the way of loading.
bool progress(Pipeline& pipeline, GstProgressType wanted, GstClockTime patience = kLong) {
  while (const MessagePtr message = pipeline.messages.next(GST_MESSAGE_PROGRESS, patience)) {
    GstProgressType type;
    gst_message_parse_progress(message.get(), &type, nullptr, nullptr);
    if (type == wanted) {
      return true;
    }
  }
  return false;
}

/// Waits for the beginning of a text, and sees that it is not its end.
bool generating(Pipeline& pipeline) {
  const MessagePtr message = pipeline.messages.next_description(kLong);
  gboolean partial = FALSE;
  return message != nullptr &&
         gst_structure_get_boolean(description(message.get()), "partial", &partial) != FALSE &&
         partial != FALSE;
}

size_t threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

bool weights_are_mapped() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    if (line.find(".safetensors") != std::string::npos) {
      return true;
    }
  }
  return false;
}

bool is_gone(GWeakRef& object) {
  gpointer found = g_weak_ref_get(&object);
  if (found != nullptr) {
    g_object_unref(found);
  }
  return found == nullptr;
}

/// Stops a pipeline of this line where `reached` says so; the milliseconds that it took.
double stop_once(const std::string& line, const std::function<bool(Pipeline&)>& reached) {
  GWeakRef element;
  double took_ms = 0;
  {
    Pipeline pipeline(line);
    const ElementPtr describe = pipeline["describe"];
    g_weak_ref_init(&element, describe.get());
    EXPECT_TRUE(pipeline.play());
    EXPECT_TRUE(reached(pipeline));
    const gint64 before = g_get_monotonic_time();
    EXPECT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    took_ms = static_cast<double>(g_get_monotonic_time() - before) / 1000;
    GstState state = GST_STATE_VOID_PENDING;
    EXPECT_EQ(gst_element_get_state(describe.get(), &state, nullptr, 0), GST_STATE_CHANGE_SUCCESS);
    EXPECT_EQ(state, GST_STATE_NULL);
    EXPECT_EQ(stat(describe.get(), "waiting"), 0u);
  }
  EXPECT_TRUE(eventually([&] { return is_gone(element); }));
  g_weak_ref_clear(&element);
  EXPECT_TRUE(eventually([] { return !weights_are_mapped(); }));
  return took_ms;
}

/// The same several times, the first of which leaves what libraries keep for good.
void stop_often(const char* when, const std::string& line,
                const std::function<bool(Pipeline&)>& reached) {
  stop_once(line, reached);
  const size_t before = threads();
  std::vector<double> took_ms;
  for (int i = 0; i < kTries && !testing::Test::HasFailure(); ++i) {
    took_ms.push_back(stop_once(line, reached));
  }
  EXPECT_TRUE(eventually([&] { return threads() <= before; }));
  std::sort(took_ms.begin(), took_ms.end());
  std::printf("stopping %s took %.1f ms (median), %.1f to %.1f\n", when,
              took_ms[took_ms.size() / 2], took_ms.front(), took_ms.back());
}

TEST(Stop, while_the_model_is_loaded) {
  // The libraries are there then, so that what is stopped is the model's load alone.
  Pipeline first("videotestsrc num-buffers=1 ! " + kVideo +
                 "vlmdescribe max-new-tokens=1 ! fakesink");
  ASSERT_EQ(first.run(kLong).size(), 1u);
  first.set_state(GST_STATE_NULL);
  int unfinished = 0;
  // A load takes some milliseconds, and on a busy machine may be through every time.
  for (int round = 0; round < 5 && unfinished == 0; ++round) {
    stop_often("during load", "videotestsrc is-live=true ! " + kVideo + kDescribe,
               [&](Pipeline& pipeline) {
                 const bool begun = progress(pipeline, GST_PROGRESS_TYPE_START);
                 unfinished += progress(pipeline, GST_PROGRESS_TYPE_COMPLETE, 0) ? 0 : 1;
                 return begun;
               });
  }
  EXPECT_GT(unfinished, 0);
}

TEST(Stop, while_a_picture_and_its_prompt_are_read) {
  stop_often("before the first token", "videotestsrc ! " + kVideo + kDescribe,
             [](Pipeline& pipeline) {
               const ElementPtr describe = pipeline["describe"];
               return progress(pipeline, GST_PROGRESS_TYPE_COMPLETE) &&
                      eventually([&] { return stat(describe.get(), "waiting") > 0; });
             });
}

TEST(Stop, while_a_recording_is_described) {
  stop_often("during generation", "videotestsrc ! " + kVideo + kDescribe, generating);
}

TEST(Stop, while_a_camera_is_described) {
  stop_often("a camera during generation", "videotestsrc is-live=true ! " + kVideo + kDescribe,
             generating);
}

TEST(Stop, while_the_end_waits_for_the_text) {
  std::atomic<bool> ended = false;
  stop_often("while EOS waits", "videotestsrc num-buffers=30 ! " + kVideo + kDescribe,
             [&](Pipeline& pipeline) {
               ended = false;
               const ElementPtr describe = pipeline["describe"];
               GstPad* pad = gst_element_get_static_pad(describe.get(), "sink");
               gst_pad_add_probe(
                   pad, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM,
                   [](GstPad*, GstPadProbeInfo* info, gpointer flag) {
                     if (GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) == GST_EVENT_EOS) {
                       *static_cast<std::atomic<bool>*>(flag) = true;
                     }
                     return GST_PAD_PROBE_OK;
                   },
                   &ended, nullptr);
               gst_object_unref(pad);
               return generating(pipeline) && eventually([&] { return ended.load(); }) &&
                      stat(describe.get(), "waiting") > 0 &&
                      pipeline.messages.next(GST_MESSAGE_EOS, 0) == nullptr;
             });
}

}  // namespace
}  // namespace element_test
