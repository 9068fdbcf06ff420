// SPDX-License-Identifier: LGPL-2.1-or-later

// Sources with few buffers, such as cameras and decoders: however slow the model is, the element
// holds none that they need to go on.

#include <gst/allocators/gstfdmemory.h>
#include <gst/video/video.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "element_support.h"

namespace element_test {
namespace {

/// A pipeline whose element `describe` makes the source in front of it use a pool of its own with
/// these bounds, and notes which buffers come.
class PooledPipeline {
 public:
  PooledPipeline(const std::string& line, guint minimum, guint maximum)
      : minimum_(minimum), maximum_(maximum), pipeline(line), describe(pipeline["describe"]) {
    GstPad* pad = gst_element_get_static_pad(describe.get(), "sink");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, answer, this, nullptr);
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, note, this, nullptr);
    gst_object_unref(pad);
  }
  PooledPipeline(const PooledPipeline&) = delete;
  PooledPipeline& operator=(const PooledPipeline&) = delete;

  size_t buffers() {
    const std::lock_guard lock(mutex_);
    return seen_.size();
  }

 private:
  static GstPadProbeReturn answer(GstPad*, GstPadProbeInfo* info, gpointer data) {
    GstQuery* query = GST_PAD_PROBE_INFO_QUERY(info);
    if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION) {
      return GST_PAD_PROBE_OK;
    }
    const auto* self = static_cast<PooledPipeline*>(data);
    GstCaps* caps = nullptr;
    gst_query_parse_allocation(query, &caps, nullptr);
    GstVideoInfo video;
    EXPECT_TRUE(gst_video_info_from_caps(&video, caps));
    GstBufferPool* pool = gst_video_buffer_pool_new();
    gst_query_add_allocation_pool(query, pool, static_cast<guint>(video.size), self->minimum_,
                                  self->maximum_);
    gst_object_unref(pool);
    return GST_PAD_PROBE_HANDLED;
  }

  static GstPadProbeReturn note(GstPad*, GstPadProbeInfo* info, gpointer data) {
    auto* self = static_cast<PooledPipeline*>(data);
    const std::lock_guard lock(self->mutex_);
    self->seen_.insert(GST_PAD_PROBE_INFO_BUFFER(info));
    return GST_PAD_PROBE_OK;
  }

  const guint minimum_;
  const guint maximum_;
  std::mutex mutex_;
  std::set<GstBuffer*> seen_;

 public:
  Pipeline pipeline;  // stops before the others go, which its threads use
  const ElementPtr describe;
};

struct Bounds {
  guint minimum;
  guint maximum;
};

class SmallPools : public testing::TestWithParam<Bounds> {};

TEST_P(SmallPools, camera_goes_on_while_the_model_is_busy) {
  const auto [minimum, maximum] = GetParam();
  PooledPipeline pooled(
      "videotestsrc is-live=true ! video/x-raw,format=RGB,width=32,height=16,framerate=200/1 ! "
      "vlmdescribe name=describe mode=live interval=50000000 frames=3 model=fake:camera ! "
      "fakesink sync=false enable-last-sample=false",
      minimum, maximum);
  GstElement* const describe = pooled.describe.get();
  close_gate();
  ASSERT_TRUE(pooled.pipeline.play());
  EXPECT_TRUE(eventually([&] { return stat(describe, "waiting") == 2; }));
  const guint64 before = stat(describe, "frames");
  EXPECT_TRUE(eventually([&] { return stat(describe, "frames") >= before + 100; }));
  EXPECT_LE(pooled.buffers(), maximum);
  open_gate();
  EXPECT_NE(pooled.pipeline.messages.next_description(), nullptr);
}

TEST_P(SmallPools, recording_goes_on_until_all_windows_wait) {
  const auto [minimum, maximum] = GetParam();
  PooledPipeline pooled(
      "videotestsrc num-buffers=75 ! video/x-raw,format=RGB,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe name=describe mode=recorded interval=200000000 frames=2 max-pending=8 "
      "model=fake:recording ! fakesink sync=false enable-last-sample=false",
      minimum, maximum);
  close_gate();
  ASSERT_TRUE(pooled.pipeline.play());
  EXPECT_TRUE(eventually([&] { return stat(pooled.describe.get(), "waiting") == 8; }));
  open_gate();
  EXPECT_EQ(pooled.pipeline.run().size(), 15u);
  EXPECT_LE(pooled.buffers(), maximum);
}

INSTANTIATE_TEST_SUITE_P(Pool, SmallPools,
                         testing::Values(Bounds{0, 1}, Bounds{0, 2}, Bounds{1, 1}, Bounds{1, 2},
                                         Bounds{2, 2}, Bounds{2, 3}, Bounds{3, 3}),
                         [](const testing::TestParamInfo<Bounds>& bounds) {
                           return std::to_string(bounds.param.minimum) + "_to_" +
                                  std::to_string(bounds.param.maximum);
                         });

// A decoder that can make more buffers has no need to: they would only fill the caches.
TEST(Pool, that_can_grow_need_not) {
  PooledPipeline pooled(
      "videotestsrc num-buffers=75 ! video/x-raw,format=RGB,width=32,height=16,framerate=25/1 ! "
      "vlmdescribe name=describe mode=recorded interval=200000000 frames=2 max-pending=8 "
      "model=fake:recording ! fakesink sync=false enable-last-sample=false",
      0, 0);
  close_gate();
  ASSERT_TRUE(pooled.pipeline.play());
  EXPECT_TRUE(eventually([&] { return stat(pooled.describe.get(), "waiting") == 8; }));
  open_gate();
  EXPECT_EQ(pooled.pipeline.run().size(), 15u);
  // The one that is being written and the one before it.
  EXPECT_LE(pooled.buffers(), 2u);
}

/// Memory as a device shares it, all of one value.
GstMemory* device_memory(GstAllocator* allocator, guint8 value) {
  const int file = memfd_create("frame", 0);
  EXPECT_EQ(ftruncate(file, kFrameSize), 0);
  GstMemory* memory = gst_fd_allocator_alloc(allocator, file, kFrameSize, GST_FD_MEMORY_FLAG_NONE);
  GstMapInfo map;
  EXPECT_TRUE(gst_memory_map(memory, &map, GST_MAP_WRITE));
  std::fill_n(map.data, map.size, value);
  gst_memory_unmap(memory, &map);
  return memory;
}

// Upstream asks for its buffers before it changes their size or number.
TEST(Pool, drain_query_brings_all_buffers_back) {
  for (const char* policy : {"latest", "exact"}) {
    constexpr guint kAll = 6;
    const auto pool = frame_pool(kAll, kAll);
    Rig rig(std::string("mode=recorded interval=400000000 model=fake:drain meta-policy=") + policy);
    rig.begin();
    for (guint i = 0; i < 3; ++i) {
      ASSERT_EQ(
          gst_harness_push(rig.video, pooled_frame(pool.get(), i * 40 * GST_MSECOND).release()),
          GST_FLOW_OK);
    }
    rig.buffers();
    GstQuery* query = gst_query_new_drain();
    gst_pad_peer_query(rig.video->srcpad, query);
    gst_query_unref(query);
    std::vector<BufferPtr> all;
    for (guint i = 0; i < kAll; ++i) {
      GstBufferPoolAcquireParams params{};
      params.flags = GST_BUFFER_POOL_ACQUIRE_FLAG_DONTWAIT;
      GstBuffer* buffer = nullptr;
      EXPECT_EQ(gst_buffer_pool_acquire_buffer(pool.get(), &buffer, &params), GST_FLOW_OK)
          << policy << " " << i;
      all.emplace_back(buffer);
    }
    ASSERT_TRUE(rig.eos());
    EXPECT_NE(rig.messages->next_description(), nullptr);
    EXPECT_EQ(rig.buffers().size(), std::string(policy) == "exact" ? 3u : 0u);
  }
}

// Pools of cameras do not always tell how few buffers they have.
TEST(Pool, memory_of_a_device_is_given_back_where_the_pool_tells_no_bound) {
  const auto pool = frame_pool(0, 0);
  GstAllocator* allocator = gst_fd_allocator_new();
  Rig rig("mode=recorded interval=40000000 max-pending=8 model=fake:device");
  rig.begin();
  close_gate();
  std::vector<GstMemory*> given;
  for (guint8 i = 0; i < 4; ++i) {
    BufferPtr buffer = pooled_frame(pool.get(), i * 40 * GST_MSECOND);
    ASSERT_NE(buffer, nullptr);
    given.push_back(device_memory(allocator, i));
    gst_buffer_replace_all_memory(buffer.get(), gst_memory_ref(given.back()));
    ASSERT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
  }
  rig.buffers();
  // The last one may be kept until the next comes: only then its window is filled.
  EXPECT_EQ(stat(rig.element, "waiting"), given.size() - 1);
  for (size_t i = 0; i + 1 < given.size(); ++i) {
    EXPECT_EQ(GST_MINI_OBJECT_REFCOUNT_VALUE(given[i]), 1) << i;
  }
  open_gate();
  ASSERT_TRUE(rig.eos());
  for (int i = 0; i < 4; ++i) {
    const MessagePtr message = rig.messages->next_description();
    ASSERT_NE(message, nullptr);
    const std::string shade = std::to_string(i);
    EXPECT_EQ(text_of(description(message.get())),
              std::string("Describe the scene.|16x8|") + shade + "," + shade + "," + shade + "|1");
  }
  for (GstMemory* memory : given) {
    gst_memory_unref(memory);
  }
  gst_object_unref(allocator);
}

// What waits for the model is bounded by windows and frames, whatever max-held-bytes says.
TEST(Pool, pictures_for_the_model_are_those_of_the_windows_on_their_way) {
  constexpr gsize kSize = 512 * 512 * 3;
  constexpr int kPictures = (2 + 1) * 3;
  Rig rig(
      "mode=recorded interval=120000000 frames=3 max-pending=2 max-held-bytes=1 model=fake:sum");
  rig.begin("video/x-raw,format=RGB,width=512,height=512,framerate=25/1");
  close_gate();
  const auto taken = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = taken();
  std::atomic<int> flow = GST_FLOW_CUSTOM_SUCCESS;
  std::thread pusher([&] {
    GstFlowReturn last = GST_FLOW_OK;
    for (guint64 i = 0; i < 100 && last == GST_FLOW_OK; ++i) {
      last = gst_harness_push(
          rig.video, solid_frame(kSize, (20 + i * 40) * GST_MSECOND, 40 * GST_MSECOND).release());
      rig.buffers();
    }
    flow = last;
  });
  EXPECT_TRUE(eventually([&] { return stat(rig.element, "frames") == kPictures; }));
  g_usleep(100 * 1000);
  EXPECT_EQ(stat(rig.element, "frames"), static_cast<guint64>(kPictures));
  EXPECT_GT(taken() - before, (kPictures - 1) * kSize);
  // Besides frames on their way through, and copies whose memory is used again.
  EXPECT_LT(taken() - before, 2 * kPictures * kSize);
  rig.push_event(gst_event_new_flush_start());
  pusher.join();
  EXPECT_EQ(flow, GST_FLOW_FLUSHING);
  open_gate();
}

}  // namespace
}  // namespace element_test
