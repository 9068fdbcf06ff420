// SPDX-License-Identifier: LGPL-2.1-or-later

// Descriptions on their way to another process, with a GStreamer that has unixfdsink (1.24 and
// later).

#include <gst/app/gstappsink.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>

#include "element_support.h"

namespace element_test {
namespace {

bool has_unixfd() {
  GstElementFactory* factory = gst_element_factory_find("unixfdsrc");
  const bool found = factory != nullptr;
  g_clear_object(&factory);
  return found;
}

/// gst-launch-1.0 with a launch line, until the object goes.
class Launched {
 public:
  explicit Launched(const std::string& line) {
    gchar** words = nullptr;
    GError* error = nullptr;
    EXPECT_TRUE(g_shell_parse_argv(("gst-launch-1.0 -q " + line).c_str(), nullptr, &words, &error));
    const auto flags = static_cast<GSpawnFlags>(G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD);
    if (!g_spawn_async(nullptr, words, nullptr, flags, nullptr, nullptr, &process_, &error)) {
      ADD_FAILURE() << error->message;
      g_error_free(error);
    }
    g_strfreev(words);
  }
  ~Launched() {
    if (process_ > 0) {
      kill(process_, SIGKILL);
      waitpid(process_, nullptr, 0);
    }
  }
  Launched(const Launched&) = delete;
  Launched& operator=(const Launched&) = delete;

 private:
  GPid process_ = 0;
};

TEST(UnixFd, descriptions_reach_another_process) {
  if (!has_unixfd()) {
    GTEST_SKIP() << "this GStreamer has no unixfdsink";
  }
  const Folder folder;
  const std::string socket = folder.file("video");
  const Launched sender(
      "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=32,framerate=25/1 ! "
      "vlmdescribe name=front mode=recorded interval=200000000 prompt=p "
      "model=fake:text=caf\xc3\xa9 "
      "meta-policy=latest ! unixfdsink sync=false socket-path=" +
      socket);
  ASSERT_TRUE(eventually([&] { return g_file_test(socket.c_str(), G_FILE_TEST_EXISTS) != FALSE; }));
  // What a program that has no vlmdescribe must do to keep the metadata.
  const gchar* no_tags[] = {nullptr};
  ASSERT_NE(gst_meta_register_custom("vlm-description", no_tags, nullptr, nullptr, nullptr),
            nullptr);
  Pipeline receiver("unixfdsrc socket-path=" + socket + " ! appsink name=video sync=false");
  ASSERT_TRUE(receiver.play());
  const ElementPtr sink = receiver["video"];
  const bool found = eventually([&] {
    GstSample* sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), kPatience);
    const GstStructure* meta = sample == nullptr ? nullptr : meta_of(gst_sample_get_buffer(sample));
    if (meta != nullptr) {
      EXPECT_EQ(text_of(meta), "caf\xc3\xa9");
      EXPECT_EQ(text_of(meta, "prompt"), "p");
      EXPECT_EQ(text_of(meta, "element"), "front");
      EXPECT_GT(time_of(meta, "duration"), 0u);
      EXPECT_EQ(times_of(meta, "frame-pts").size(), 1u);
      EXPECT_TRUE(gst_structure_has_field_typed(meta, "logprob", G_TYPE_DOUBLE));
    }
    g_clear_pointer(&sample, gst_sample_unref);
    return meta != nullptr;
  });
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace element_test
