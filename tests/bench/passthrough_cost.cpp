// SPDX-License-Identifier: LGPL-2.1-or-later

// What an element costs the streaming thread: its processor time for each 1080p frame that is
// pushed through. Unlike a frame rate it can be measured on a busy machine.
//
//     passthrough_cost LAUNCH-LINE…       such as "vlmdescribe mode=recorded", "identity"
//
// GST_PLUGIN_PATH, VLM_ENGINE_LIBRARY and VLM_MODEL say with what. Built by ninja, run by hand.

#include <gst/check/gstharness.h>
#include <gst/video/video.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <vector>

namespace {

constexpr const char* kCaps = "video/x-raw,format=I420,width=1920,height=1080,framerate=30/1";
constexpr int kWarmUp = 60;
constexpr int kFrames = 1800;

double thread_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

GstBufferPool* frame_pool() {
  GstBufferPool* pool = gst_buffer_pool_new();
  GstCaps* caps = gst_caps_from_string(kCaps);
  GstVideoInfo info;
  gst_video_info_from_caps(&info, caps);
  GstStructure* config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_set_params(config, caps, static_cast<guint>(info.size), 4, 0);
  gst_caps_unref(caps);
  gst_buffer_pool_set_config(pool, config);
  gst_buffer_pool_set_active(pool, TRUE);
  return pool;
}

bool measure(const char* line) {
  GError* error = nullptr;
  GstElement* element = gst_parse_launch(line, &error);
  if (element == nullptr || error != nullptr) {
    std::fprintf(stderr, "%s: %s\n", line, error->message);
    g_clear_error(&error);
    return false;
  }
  GstHarness* harness = gst_harness_new_with_element(element, "sink", "src");
  gst_harness_set_src_caps_str(harness, kCaps);
  GstBufferPool* pool = frame_pool();
  std::vector<double> spent_us;
  for (int i = 0; i < kWarmUp + kFrames; ++i) {
    GstBuffer* frame = nullptr;
    gst_buffer_pool_acquire_buffer(pool, &frame, nullptr);
    GST_BUFFER_DURATION(frame) = GST_SECOND / 30;
    GST_BUFFER_PTS(frame) = static_cast<GstClockTime>(i) * GST_BUFFER_DURATION(frame);
    const double before = thread_us();
    gst_harness_push(harness, frame);
    const double after = thread_us();
    if (GstBuffer* passed = gst_harness_try_pull(harness)) {
      gst_buffer_unref(passed);
    }
    if (i >= kWarmUp) {
      spent_us.push_back(after - before);
    }
  }
  std::sort(spent_us.begin(), spent_us.end());
  double total_us = 0;
  for (const double one : spent_us) {
    total_us += one;
  }
  std::printf("%-45s mean %6.1f us, median %5.1f us, longest %7.0f us a frame\n", line,
              total_us / kFrames, spent_us[kFrames / 2], spent_us.back());
  gst_harness_teardown(harness);
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
  gst_object_unref(element);
  return true;
}

}  // namespace

int main(int count, char** lines) {
  gst_init(&count, &lines);
  bool ok = count > 1;
  for (int i = 1; i < count; ++i) {
    ok = measure(lines[i]) && ok;
  }
  return ok ? 0 : 2;
}
