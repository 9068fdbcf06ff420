// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmcuda.h"

#if VLM_HAVE_CUDA
#include <dlfcn.h>
#include <gst/cuda/gstcudaloader.h>
#include <gst/cuda/gstcudamemory.h>
#include <gst/cuda/gstcudautils.h>

#include <charconv>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>

#include "gstvlmlayout.h"
#endif

namespace gstvlm {

#if VLM_HAVE_CUDA
namespace {

struct UnrefContext {
  void operator()(GstContext* context) const { gst_context_unref(context); }
  void operator()(GstCudaContext* context) const { gst_object_unref(context); }
};
using ContextPtr = std::unique_ptr<GstContext, UnrefContext>;
using CudaContextPtr = std::unique_ptr<GstCudaContext, UnrefContext>;

// N of cuda:N.
std::optional<int> named_gpu(std::string_view device) {
  constexpr std::string_view kPrefix = "cuda:";
  if (device == "cuda") {
    return 0;
  }
  int index = 0;
  if (!device.starts_with(kPrefix)) {
    return std::nullopt;
  }
  const char* end = device.data() + device.size();
  const auto [parsed, failure] = std::from_chars(device.data() + kPrefix.size(), end, index);
  if (failure != std::errc() || parsed != end || index < 0) {
    return std::nullopt;
  }
  return index;
}

/// The driver's calls that GStreamer has no names for.
struct PrimaryContexts {
  CUresult (*retain)(CUcontext* context, CUdevice device);
  CUresult (*release)(CUdevice device);
};

const PrimaryContexts* primary_contexts() {
  static const std::optional<PrimaryContexts> calls = []() -> std::optional<PrimaryContexts> {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver == nullptr) {
      return std::nullopt;
    }
    const PrimaryContexts found = {reinterpret_cast<decltype(PrimaryContexts::retain)>(
                                       dlsym(driver, "cuDevicePrimaryCtxRetain")),
                                   reinterpret_cast<decltype(PrimaryContexts::release)>(
                                       dlsym(driver, "cuDevicePrimaryCtxRelease_v2"))};
    return found.retain != nullptr && found.release != nullptr ? std::optional(found)
                                                               : std::nullopt;
  }();
  return calls ? &*calls : nullptr;
}

// `device` and 1, since a null pointer would be no data.
void release_primary(gpointer device_and_one) {
  primary_contexts()->release(GPOINTER_TO_INT(device_and_one) - 1);
}

// Keeps the primary context for as long as it lives.
CudaContextPtr wrap_primary(int gpu) {
  CUdevice device = 0;
  CUcontext handle = nullptr;
  if (primary_contexts() == nullptr || CuInit(0) != CUDA_SUCCESS ||
      CuDeviceGet(&device, gpu) != CUDA_SUCCESS ||
      primary_contexts()->retain(&handle, device) != CUDA_SUCCESS) {
    return nullptr;
  }
  CudaContextPtr context(gst_cuda_context_new_wrapped(handle, device));
  if (context == nullptr) {
    primary_contexts()->release(device);
    return nullptr;
  }
  g_object_set_data_full(G_OBJECT(context.get()), "vlm-primary-context",
                         GINT_TO_POINTER(device + 1), release_primary);
  return context;
}

// Elements take contexts for the same where their wrappers are, so a GPU has one in the process.
CudaContextPtr wrapped_primary(int gpu) {
  static Mutex mutex;
  static auto* const wrappers = new std::map<int, GWeakRef>;  // outlives whoever holds them
  const Lock lock(mutex);
  GWeakRef& known = (*wrappers)[gpu];
  CudaContextPtr context(static_cast<GstCudaContext*>(g_weak_ref_get(&known)));
  if (context == nullptr) {
    context = wrap_primary(gpu);
    g_weak_ref_set(&known, context.get());
  }
  return context;
}

bool is_primary(GstCudaContext* context, int gpu) {
  guint id = 0;
  g_object_get(context, "cuda-device-id", &id, nullptr);
  CUcontext primary = nullptr;
  if (id != static_cast<guint>(gpu) || primary_contexts() == nullptr ||
      primary_contexts()->retain(&primary, gpu) != CUDA_SUCCESS) {
    return false;
  }
  primary_contexts()->release(gpu);
  return gst_cuda_context_get_handle(context) == primary;
}

// What the element was given or made, where it is of that GPU.
ContextPtr held_context(GstElement* element, int gpu) {
  ContextPtr context(gst_element_get_context(element, GST_CUDA_CONTEXT_TYPE));
  GstCudaContext* found = nullptr;
  if (context == nullptr || !gst_cuda_handle_set_context(element, context.get(), gpu, &found)) {
    return nullptr;
  }
  gst_object_unref(found);
  return context;
}

ContextPtr context_for(GstElement* element, int gpu) {
  if (!gst_cuda_load_library()) {
    return nullptr;
  }
  if (ContextPtr held = held_context(element, gpu)) {
    return held;
  }
  gst_element_post_message(
      element, gst_message_new_need_context(GST_OBJECT(element), GST_CUDA_CONTEXT_TYPE));
  if (ContextPtr given = held_context(element, gpu)) {
    return given;
  }
  const CudaContextPtr made = wrapped_primary(gpu);
  if (made == nullptr) {
    return nullptr;
  }
  ContextPtr context(gst_context_new_cuda_context(made.get()));
  gst_element_set_context(element, context.get());
  gst_element_post_message(
      element, gst_message_new_have_context(GST_OBJECT(element), gst_context_ref(context.get())));
  return context;
}

// Until 1.24 whoever writes waits before the buffer goes on.
void wait_for_writer([[maybe_unused]] GstMemory* memory) {
#if GST_CHECK_VERSION(1, 24, 0)
  gst_cuda_memory_sync(GST_CUDA_MEMORY_CAST(memory));
#endif
}

}  // namespace

bool answer_cuda_context(GstElement* element, const std::string& device, GstQuery* query) {
  const gchar* type = nullptr;
  if (GST_QUERY_TYPE(query) != GST_QUERY_CONTEXT || !gst_query_parse_context_type(query, &type) ||
      g_strcmp0(type, GST_CUDA_CONTEXT_TYPE) != 0) {
    return false;
  }
  const std::optional<int> gpu = device == "auto" ? 0 : named_gpu(device);
  const ContextPtr context = gpu ? context_for(element, *gpu) : nullptr;
  if (context == nullptr) {
    return false;
  }
  gst_query_set_context(query, context.get());
  return true;
}

void announce_cuda_context(GstElement* element, const std::string& device) {
  if (const std::optional<int> gpu = named_gpu(device)) {
    context_for(element, *gpu);
  }
}

std::shared_ptr<const vlm::GpuPicture> picture_on_gpu(GstBuffer* buffer, const Look& look,
                                                      const std::string& device) {
  const std::optional<int> gpu = named_gpu(device);
  if (!gpu || gst_buffer_n_memory(buffer) != 1 ||
      gst_buffer_get_video_crop_meta(buffer) != nullptr ||
      gst_buffer_get_video_meta(buffer) == nullptr) {
    return nullptr;
  }
  GstMemory* memory = gst_buffer_peek_memory(buffer, 0);
  if (!gst_is_cuda_memory(memory) || !is_primary(GST_CUDA_MEMORY_CAST(memory)->context, *gpu)) {
    return nullptr;
  }
  const auto held = std::make_shared<MappedFrame>(
      look.info, buffer, static_cast<GstMapFlags>(GST_MAP_READ | GST_MAP_CUDA));
  const std::optional<vlm::PictureLayout> layout =
      held->mapped ? plain_layout(held->frame, look.orientation) : std::nullopt;
  if (!layout) {
    return nullptr;
  }
  wait_for_writer(memory);
  return std::make_shared<vlm::GpuPicture>(vlm::GpuPicture{*gpu, *layout, held});
}
#else
bool answer_cuda_context(GstElement*, const std::string&, GstQuery*) {
  return false;
}

void announce_cuda_context(GstElement*, const std::string&) {}

std::shared_ptr<const vlm::GpuPicture> picture_on_gpu(GstBuffer*, const Look&, const std::string&) {
  return nullptr;
}
#endif

}  // namespace gstvlm
