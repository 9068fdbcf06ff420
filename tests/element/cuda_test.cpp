// SPDX-License-Identifier: LGPL-2.1-or-later
// Frames in CUDA memory, with a driver that keeps a device's memory on the host and lets nobody
// else read it.
#include <dlfcn.h>
#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudamemory.h>
#include <gst/cuda/gstcudautils.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "element_support.h"
#include "fake_driver/fake_driver.h"

namespace {

using namespace element_test;

constexpr const char* kUpload = " ! cudaupload name=up ! video/x-raw(memory:CUDAMemory) ! ";
constexpr const char* kUploadToFirst =
    " ! cudaupload cuda-device-id=0 ! video/x-raw(memory:CUDAMemory) ! ";

FakeDriverCounts driver() {
  static const auto ask = reinterpret_cast<decltype(&fake_driver_counts)>(
      dlsym(dlopen("libcuda.so.1", RTLD_NOW), "fake_driver_counts"));
  return ask();
}

/// 50 frames of two seconds, of which the middle one of each second is described.
std::string source(const std::string& format = "NV12") {
  return "videotestsrc num-buffers=50 pattern=smpte ! "
         "video/x-raw,width=50,height=38,framerate=25/1,format=" +
         format;
}

std::string describe(const std::string& model, const std::string& more = {}) {
  return "vlmdescribe name=d mode=recorded interval=1000000000 model=" + model + " " + more +
         " ! fakesink";
}

std::vector<std::string> texts(Pipeline& pipeline) {
  std::vector<std::string> all;
  for (const MessagePtr& message : pipeline.run()) {
    all.push_back(text_of(description(message.get())));
  }
  return all;
}

std::vector<std::string> texts(const std::string& line) {
  Pipeline pipeline(line);
  return texts(pipeline);
}

/// The CUDA context that an element holds.
gpointer context_of(GstElement* element) {
  GstContext* context = gst_element_get_context(element, GST_CUDA_CONTEXT_TYPE);
  GstCudaContext* found = nullptr;
  if (context != nullptr) {
    gst_cuda_handle_set_context(element, context, -1, &found);
    gst_context_unref(context);
  }
  const gpointer held = found;
  g_clear_object(&found);
  return held;
}

class Cuda : public ::testing::Test {
 protected:
  ~Cuda() override {
    EXPECT_EQ(driver().allocations, 0);
    EXPECT_EQ(driver().contexts, 0);
    EXPECT_EQ(driver().primary_holders, 0);
  }
  int64_t downloads() const { return driver().downloads - before_.downloads; }
  int64_t uploads() const { return driver().uploads - before_.uploads; }

 private:
  const FakeDriverCounts before_ = driver();
};

TEST_F(Cuda, an_engine_on_a_cpu_sees_the_same_and_only_what_it_sees_is_downloaded) {
  for (const char* format : {"NV12", "I420", "P010_10LE", "RGB", "BGRA"}) {
    const int64_t already = downloads();
    const std::vector<std::string> seen = texts(source(format) + kUpload + describe("fake:"));
    EXPECT_EQ(downloads() - already, 2) << format;
    EXPECT_EQ(seen, texts(source(format) + " ! " + describe("fake:"))) << format;
    EXPECT_EQ(seen.size(), 2u);
  }
}

TEST_F(Cuda, frames_stay_on_the_engines_gpu) {
  for (const char* format : {"NV12", "RGB", "BGR", "RGBA", "BGRx"}) {
    std::vector<std::string> expected = texts(source(format) + " ! " + describe("fake:"));
    for (std::string& text : expected) {
      text += "|gpu";
    }
    for (const char* device : {"auto", "cuda", "cuda:0"}) {
      EXPECT_EQ(
          texts(source(format) + kUpload + describe("fake:gpu=0", std::string("device=") + device)),
          expected)
          << format << " " << device;
    }
  }
  EXPECT_EQ(downloads(), 0);
}

TEST_F(Cuda, turned_frames_stay_there) {
  const std::string turn = " ! taginject tags=image-orientation=rotate-90";
  std::vector<std::string> expected = texts(source() + turn + " ! " + describe("fake:"));
  ASSERT_EQ(expected.size(), 2u);
  EXPECT_NE(expected[0].find("|38x50|"), std::string::npos) << expected[0];
  for (std::string& text : expected) {
    text += "|gpu";
  }
  EXPECT_EQ(texts(source() + turn + kUpload + describe("fake:gpu=0")), expected);
  EXPECT_EQ(downloads(), 0);
}

TEST_F(Cuda, what_the_gpu_does_not_know_is_read_through_system_memory) {
  for (const std::string& video :
       {source("I420"), source("P010_10LE"), source() + ",pixel-aspect-ratio=2/1",
        source() + ",interlace-mode=mixed"}) {
    EXPECT_EQ(texts(video + kUpload + describe("fake:gpu=0")),
              texts(video + " ! " + describe("fake:")))
        << video;
  }
  EXPECT_EQ(downloads(), 8);
}

TEST_F(Cuda, the_decoder_takes_the_primary_context) {
  Pipeline pipeline(source() + kUpload + describe("fake:gpu=0"));
  EXPECT_EQ(texts(pipeline).size(), 2u);
  EXPECT_EQ(driver().contexts, 0);
  EXPECT_EQ(driver().primary_holders, 1);
  EXPECT_NE(context_of(pipeline["d"].get()), nullptr);
  EXPECT_EQ(context_of(pipeline["d"].get()), context_of(pipeline["up"].get()));
}

TEST_F(Cuda, elements_on_both_sides_and_two_descriptions_share_it) {
  Pipeline pipeline(source() + kUpload +
                    "vlmdescribe name=first mode=recorded interval=1000000000 model=fake:gpu=0 ! "
                    "cudadownload name=down ! video/x-raw ! cudaupload name=again ! "
                    "video/x-raw(memory:CUDAMemory) ! " +
                    describe("fake:gpu=0"));
  for (const std::string& text : texts(pipeline)) {
    EXPECT_NE(text.find("|gpu"), std::string::npos) << text;
  }
  EXPECT_EQ(driver().contexts, 0);
  for (const char* name : {"down", "again", "d", "first"}) {
    EXPECT_EQ(context_of(pipeline[name].get()), context_of(pipeline["up"].get())) << name;
  }
}

TEST_F(Cuda, an_element_that_names_its_gpu_tells_the_pipeline) {
  Pipeline pipeline(source() + " ! " + describe("fake:gpu=1", "device=cuda:1"));
  ASSERT_NE(pipeline.set_state(GST_STATE_READY), GST_STATE_CHANGE_FAILURE);
  EXPECT_EQ(driver().primary_holders, 1);
  const MessagePtr told = pipeline.messages.next(GST_MESSAGE_HAVE_CONTEXT);
  ASSERT_NE(told, nullptr);
  GstContext* context = nullptr;
  gst_message_parse_have_context(told.get(), &context);
  GstCudaContext* found = nullptr;
  EXPECT_TRUE(gst_cuda_handle_set_context(pipeline.pipeline, context, 1, &found));
  gst_context_unref(context);
  g_clear_object(&found);
}

TEST_F(Cuda, elements_that_come_later_get_it_from_the_pipeline) {
  Pipeline pipeline(source() + " ! " + describe("fake:gpu=0", "device=cuda"));
  ASSERT_NE(pipeline.set_state(GST_STATE_READY), GST_STATE_CHANGE_FAILURE);
  // As decodebin plugs decoders: linked to nothing that could be asked.
  GstElement* later = gst_element_factory_make("cudaupload", nullptr);
  ASSERT_TRUE(gst_bin_add(GST_BIN(pipeline.pipeline), later));
  ASSERT_NE(gst_element_set_state(later, GST_STATE_READY), GST_STATE_CHANGE_FAILURE);
  EXPECT_NE(context_of(later), nullptr);
  EXPECT_EQ(context_of(later), context_of(pipeline["d"].get()));
  EXPECT_EQ(driver().contexts, 0);
}

TEST_F(Cuda, an_engine_that_is_given_tells_its_gpu) {
  Pipeline first(source() + " ! " + describe("fake:gpu=0"));
  EXPECT_EQ(texts(first).size(), 2u);
  GstContext* engine = gst_element_get_context(first["d"].get(), "vlm.engine");
  ASSERT_NE(engine, nullptr);
  Pipeline second(source() + " ! " + describe("fake:gpu=0"));
  gst_element_set_context(second.pipeline, engine);
  gst_context_unref(engine);
  ASSERT_NE(second.set_state(GST_STATE_READY), GST_STATE_CHANGE_FAILURE);
  EXPECT_NE(context_of(second["d"].get()), nullptr);
  EXPECT_EQ(context_of(second["d"].get()), context_of(first["d"].get()));
}

/// A frame of a decoder that has no pool: 16 × 8 pixels of one grey, in the element's own context.
BufferPtr frame_in_cuda_memory(Rig& rig, GstClockTime pts) {
  GstQuery* query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE);
  EXPECT_TRUE(gst_pad_peer_query(rig.video->srcpad, query));
  GstContext* context = nullptr;
  gst_query_parse_context(query, &context);
  GstCudaContext* cuda = nullptr;
  EXPECT_TRUE(gst_cuda_handle_set_context(rig.element, context, 0, &cuda));
  gst_query_unref(query);
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_NV12, 16, 8);
  gst_cuda_memory_init_once();
  GstAllocator* allocator = gst_allocator_find(GST_CUDA_MEMORY_TYPE_NAME);
#if GST_CHECK_VERSION(1, 24, 0)
  GstMemory* memory = gst_cuda_allocator_alloc(GST_CUDA_ALLOCATOR(allocator), cuda, nullptr, &info);
#else
  GstMemory* memory = gst_cuda_allocator_alloc(GST_CUDA_ALLOCATOR(allocator), cuda, &info);
#endif
  gst_object_unref(allocator);
  gst_object_unref(cuda);
  const GstVideoInfo& held = GST_CUDA_MEMORY_CAST(memory)->info;
  GstBuffer* buffer = gst_buffer_new();
  gst_buffer_append_memory(buffer, memory);
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_NV12, 16, 8, 2,
                                 const_cast<gsize*>(held.offset), const_cast<gint*>(held.stride));
  gst_buffer_memset(buffer, 0, 128, gst_buffer_get_size(buffer));
  GST_BUFFER_PTS(buffer) = pts;
  GST_BUFFER_DURATION(buffer) = 40 * GST_MSECOND;
  return BufferPtr(buffer);
}

TEST_F(Cuda, a_buffer_that_may_be_scarce_is_copied_on_the_gpu_and_given_back) {
  close_gate();
  {
    Rig rig("mode=recorded interval=40000000 model=fake:gpu=0");
    rig.begin(
        "video/x-raw(memory:CUDAMemory),format=NV12,width=16,height=8,framerate=25/1,"
        "colorimetry=bt601");
    const int64_t copies = driver().copies;
    const int64_t downloaded = downloads();
    for (GstClockTime pts = 0; pts < 120 * GST_MSECOND; pts += 40 * GST_MSECOND) {
      BufferPtr buffer = frame_in_cuda_memory(rig, pts);
      GstMemory* memory = gst_buffer_get_memory(buffer.get(), 0);
      EXPECT_EQ(gst_harness_push(rig.video, buffer.release()), GST_FLOW_OK);
      rig.buffers();
      EXPECT_EQ(GST_MINI_OBJECT_REFCOUNT_VALUE(memory), 1);
      gst_memory_unref(memory);
    }
    EXPECT_EQ(driver().copies - copies, 3);
    open_gate();
    rig.eos();
    const MessagePtr message = rig.messages->next_description();
    ASSERT_NE(message, nullptr);
    EXPECT_EQ(text_of(description(message.get())), "Describe the scene.|16x8|130,130,130|1|gpu");
    EXPECT_EQ(downloads(), downloaded + 3);  // gst_buffer_memset's, one for each frame
  }
}

TEST_F(Cuda, another_gpus_frames_are_read_through_system_memory) {
  const std::vector<std::string> expected = texts(source() + " ! " + describe("fake:"));
  EXPECT_EQ(texts(source() + kUploadToFirst + describe("fake:gpu=1", "device=cuda:1")), expected);
  EXPECT_EQ(downloads(), 2);
  // One that takes any GPU takes the engine's.
  EXPECT_EQ(texts(source() + kUpload + describe("fake:gpu=1", "device=cuda:1"))[0],
            expected[0] + "|gpu");
  EXPECT_EQ(downloads(), 2);
}

TEST_F(Cuda, an_applications_context_is_taken_and_read_through_system_memory) {
  const std::vector<std::string> expected = texts(source() + " ! " + describe("fake:"));
  Pipeline pipeline(source() + kUpload + describe("fake:gpu=0"));
  GstCudaContext* own = gst_cuda_context_new(0);
  GstContext* context = gst_context_new_cuda_context(own);
  gst_element_set_context(pipeline.pipeline, context);
  EXPECT_EQ(texts(pipeline), expected);
  EXPECT_EQ(downloads(), 2);
  EXPECT_EQ(driver().primary_holders, 0);
  EXPECT_EQ(context_of(pipeline["up"].get()), own);
  gst_context_unref(context);
  gst_object_unref(own);
}

TEST_F(Cuda, a_cpu_offers_no_context) {
  Pipeline pipeline(source() + kUpload + describe("fake:", "device=cpu"));
  EXPECT_EQ(texts(pipeline).size(), 2u);
  EXPECT_EQ(driver().primary_holders, 0);
  EXPECT_EQ(driver().contexts, 1);
}

// After the query is answered.
GstPadProbeReturn see_pool(GstPad*, GstPadProbeInfo* info, gpointer seen) {
  GstQuery* query = GST_PAD_PROBE_INFO_QUERY(info);
  if ((info->type & GST_PAD_PROBE_TYPE_PULL) != 0 &&
      GST_QUERY_TYPE(query) == GST_QUERY_ALLOCATION &&
      gst_query_get_n_allocation_pools(query) > 0) {
    GstBufferPool* pool = nullptr;
    gst_query_parse_nth_allocation_pool(query, 0, &pool, nullptr, nullptr, nullptr);
    *static_cast<bool*>(seen) = GST_IS_CUDA_BUFFER_POOL(pool);
    g_clear_object(&pool);
  }
  return GST_PAD_PROBE_OK;
}

TEST_F(Cuda, caps_and_pools_are_the_neighbours) {
  Pipeline pipeline(source() + kUpload +
                    "vlmdescribe name=d model=fake:gpu=0 ! video/x-raw(memory:CUDAMemory) ! "
                    "cudadownload ! video/x-raw ! fakesink");
  const ElementPtr describe = pipeline["d"];
  GstPad* sink = gst_element_get_static_pad(describe.get(), "sink");
  bool seen = false;
  gst_pad_add_probe(
      sink,
      static_cast<GstPadProbeType>(GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM | GST_PAD_PROBE_TYPE_PULL),
      see_pool, &seen, nullptr);
  GstCaps* caps = gst_pad_query_caps(sink, nullptr);
  ASSERT_EQ(gst_caps_get_size(caps), 1u);
  EXPECT_TRUE(gst_caps_features_contains(gst_caps_get_features(caps, 0),
                                         GST_CAPS_FEATURE_MEMORY_CUDA_MEMORY));
  gst_caps_unref(caps);
  gst_object_unref(sink);
  pipeline.run();
  EXPECT_TRUE(seen);
}

GstPadProbeReturn look_at(GstPad*, GstPadProbeInfo* info, gpointer memories) {
  GstMemory* memory = gst_buffer_peek_memory(GST_PAD_PROBE_INFO_BUFFER(info), 0);
  static_cast<std::vector<GstMemory*>*>(memories)->push_back(gst_is_cuda_memory(memory) ? memory
                                                                                        : nullptr);
  return GST_PAD_PROBE_OK;
}

TEST_F(Cuda, buffers_pass_as_they_are) {
  std::vector<GstMemory*> in;
  std::vector<GstMemory*> out;
  Pipeline pipeline(source() + kUpload + describe("fake:gpu=0"));
  const ElementPtr element = pipeline["d"];
  for (const auto& [name, seen] : {std::pair("sink", &in), std::pair("src", &out)}) {
    GstPad* pad = gst_element_get_static_pad(element.get(), name);
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, look_at, seen, nullptr);
    gst_object_unref(pad);
  }
  EXPECT_EQ(texts(pipeline).size(), 2u);
  EXPECT_EQ(in.size(), 50u);
  EXPECT_EQ(in, out);
  EXPECT_EQ(std::count(in.begin(), in.end(), nullptr), 0);
}

TEST_F(Cuda, a_frame_outlives_its_pipeline_while_the_model_has_it) {
  close_gate();
  const int submitted = counts().submitted;
  {
    Pipeline pipeline(source() + kUpload + describe("fake:gpu=0"));
    ASSERT_TRUE(pipeline.play());
    EXPECT_TRUE(eventually([&] { return counts().submitted > submitted; }));
    // The request is in the engine's hands; stopping cancels it, which lets go of the frame.
  }
  EXPECT_TRUE(eventually([] { return driver().allocations == 0; }));
  open_gate();
}

TEST_F(Cuda, the_newest_frame_is_described_on_request) {
  Pipeline pipeline(
      "videotestsrc is-live=true ! "
      "video/x-raw,width=50,height=38,framerate=25/1,format=NV12" +
      std::string(kUpload) +
      "vlmdescribe name=d interval=3600000000000 model=fake:gpu=0 ! fakesink");
  ASSERT_TRUE(pipeline.play());
  const ElementPtr element = pipeline["d"];
  ASSERT_TRUE(eventually([&] { return stat(element.get(), "frames") > 3; }));
  g_signal_emit_by_name(element.get(), "describe-now");
  const MessagePtr message = pipeline.messages.next_description();
  ASSERT_NE(message, nullptr);
  EXPECT_NE(text_of(description(message.get())).find("|gpu"), std::string::npos);
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  gst_init(&argc, &argv);
  GstElementFactory* upload = gst_element_factory_find("cudaupload");
  if (upload == nullptr) {
    std::puts("this GStreamer has no cudaupload, or it does not take the fake driver: skipped");
    return 77;
  }
  gst_object_unref(upload);
  const int failed = RUN_ALL_TESTS();
  gst_deinit();
  return failed;
}
