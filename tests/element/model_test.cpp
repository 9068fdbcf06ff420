// SPDX-License-Identifier: LGPL-2.1-or-later

// Many elements on the real engine with the demo model: its memory once, a fair turn for each, and
// nobody's business but one's own.

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "element_support.h"

namespace element_test {
namespace {

constexpr int kMany = 16;
/// libtorch takes its time to load on a busy machine.
constexpr GstClockTime kLong = 200 * GST_SECOND;

// One picture a second; short answers, because what they say matters elsewhere.
std::string clip(guint64 windows) {
  return std::string("videotestsrc num-buffers=")
      .append(std::to_string(windows))
      .append(" ! video/x-raw,width=64,height=48,framerate=1/1 ! ");
}
const char* const kDescribe = "vlmdescribe interval=1000000000 max-new-tokens=1 max-pending=2 ";

std::string name_of(int i) {
  return std::string("d").append(std::to_string(i));
}

std::string alone(const char* properties = "") {
  return clip(2).append(kDescribe).append(properties).append(" ! fakesink");
}

std::string together(guint64 windows) {
  std::string line = clip(windows).append("tee name=t ");
  for (int i = 0; i < kMany; ++i) {
    line.append("t. ! queue ! ").append(kDescribe).append("name=").append(name_of(i));
    line.append(" ! fakesink ");
  }
  return line;
}

/// Anonymous memory of the process in KiB: what engines allocate, without what files back.
long anonymous_kb() {
  std::ifstream status("/proc/self/status");
  std::string line;
  long kb = 0;
  while (std::getline(status, line)) {
    std::sscanf(line.c_str(), "RssAnon: %ld kB", &kb);
  }
  EXPECT_GT(kb, 0) << "no RssAnon in /proc/self/status";
  return kb;
}

/// How often a checkpoint's weights are mapped into the process.
int mappings_of_weights() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  int count = 0;
  while (std::getline(maps, line)) {
    count += line.find(".safetensors") != std::string::npos ? 1 : 0;
  }
  return count;
}

// By comparison: 32 elements more take a small part of what 32 models would.
TEST(Model, sixteen_in_one_pipeline_and_in_sixteen_take_the_memory_of_one) {
  Pipeline first(alone());
  ASSERT_EQ(first.run(kLong).size(), 2u);
  const int mapped = mappings_of_weights();
  const long one = anonymous_kb();
  long model = 0;
  {
    // Another type is another engine.
    Pipeline other(alone("dtype=float32"));
    ASSERT_EQ(other.run(kLong).size(), 2u);
    model = anonymous_kb() - one;
    EXPECT_GT(mappings_of_weights(), mapped);
  }
  EXPECT_TRUE(eventually([&] { return mappings_of_weights() == mapped; }));
  const long before = anonymous_kb();
  Pipeline all(together(2));
  EXPECT_EQ(all.run(kLong).size(), 2u * kMany);
  std::vector<std::unique_ptr<Pipeline>> apart;
  for (int i = 0; i < kMany; ++i) {
    apart.push_back(std::make_unique<Pipeline>(alone()));
    ASSERT_TRUE(apart.back()->play());
  }
  for (const auto& pipeline : apart) {
    EXPECT_EQ(pipeline->run(kLong).size(), 2u);
  }
  const long growth = anonymous_kb() - before;
  std::printf("one model takes %ld KiB, 32 elements more on the first %ld KiB\n", model, growth);
  EXPECT_EQ(mappings_of_weights(), mapped);
  EXPECT_LT(growth, 2 * kMany * model / 4);
}

TEST(Model, largest_numbers_are_described_or_named) {
  for (const char* harmless : {"max-new-tokens=2147483647", "top-k=2147483647 temperature=1",
                               "max-pending=65535", "no-repeat-ngram-size=2147483647",
                               "repetition-guard=2147483647", "top-logprobs=1024 details=true"}) {
    SCOPED_TRACE(harmless);
    Pipeline pipeline(clip(1).append("vlmdescribe ").append(harmless).append(" ! fakesink"));
    EXPECT_EQ(pipeline.run(kLong).size(), 1u);
  }
  for (const auto& [refused, words] : {std::pair{"num-beams=2147483647", "num-beams is 2147483647"},
                                       std::pair{"frames=65535", "frames=65535 take at least"}}) {
    SCOPED_TRACE(refused);
    Pipeline pipeline(clip(1).append("vlmdescribe ").append(refused).append(" ! fakesink"));
    ASSERT_TRUE(pipeline.play());
    const MessagePtr message = pipeline.messages.next(GST_MESSAGE_ERROR, kLong);
    ASSERT_NE(message, nullptr);
    GError* error = nullptr;
    gst_message_parse_error(message.get(), &error, nullptr);
    EXPECT_NE(std::string(error->message).find(words), std::string::npos) << error->message;
    g_error_free(error);
  }
}

// One stream has hundreds of windows waiting. Another that comes later does not stand in line
// behind them: it is described while most of them still wait.
TEST(Model, late_stream_does_not_wait_for_a_greedy_one) {
  constexpr guint64 kGreedy = 300;
  Pipeline greedy(clip(kGreedy).append(
      "vlmdescribe name=greedy interval=1000000000 max-pending=1000 max-new-tokens=8 ! fakesink"));
  ASSERT_TRUE(greedy.play());
  const ElementPtr element = greedy["greedy"];
  ASSERT_NE(greedy.messages.next_description(kLong), nullptr);
  ASSERT_TRUE(eventually([&] { return stat(element.get(), "windows") == kGreedy; }));
  const guint64 before = stat(element.get(), "described");
  Pipeline late(clip(1).append(kDescribe).append("! fakesink"));
  EXPECT_EQ(late.run(kLong).size(), 1u);
  const guint64 after = stat(element.get(), "described");
  std::printf("the greedy stream had %d of %d described before and %d after\n",
              static_cast<int>(before), static_cast<int>(kGreedy), static_cast<int>(after));
  EXPECT_LT(after, kGreedy);
}

}  // namespace
}  // namespace element_test
