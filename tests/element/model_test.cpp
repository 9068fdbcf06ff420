// SPDX-License-Identifier: LGPL-2.1-or-later

// Many elements on the real engine with the demo model: its memory once, a fair turn for each, and
// nobody's business but one's own.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>

#include "element_support.h"

namespace element_test {
namespace {

constexpr int kMany = 16;
/// libtorch takes its time to load on a busy machine.
constexpr GstClockTime kLong = 200 * GST_SECOND;

// One picture a second; short answers, because what they say matters elsewhere.
std::string clip(int windows) {
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

std::string together(int windows) {
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

std::string element_of(const MessagePtr& message) {
  return text_of(description(message.get()), "element");
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

// All have five windows, of which two may wait at a time: when the first has its last text, nobody
// is far behind.
TEST(Model, streams_are_served_in_turn) {
  constexpr int kWindows = 5;
  Pipeline pipeline(together(kWindows));
  std::map<std::string, int> served;
  int least_when_first_is_done = -1;
  for (const MessagePtr& message : pipeline.run(kLong)) {
    if (++served[element_of(message)] == kWindows && least_when_first_is_done < 0) {
      least_when_first_is_done = kWindows;
      for (int i = 0; i < kMany; ++i) {
        least_when_first_is_done = std::min(least_when_first_is_done, served[name_of(i)]);
      }
    }
  }
  std::printf("when the first has %d the last has %d\n", kWindows, least_when_first_is_done);
  EXPECT_EQ(served.size(), static_cast<size_t>(kMany));
  EXPECT_GE(least_when_first_is_done, kWindows / 2);
}

}  // namespace
}  // namespace element_test
