// SPDX-License-Identifier: LGPL-2.1-or-later

// A driver without a GPU, for tests of the element: libcuda.so.1 with what GStreamer's CUDA library
// looks for. It offers two devices. Their memory is the host's, closed to everyone but the copies
// below: whoever takes it for the host's own crashes.

#include "fake_driver.h"

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>
#include <vector>

// Types and numbers as in cuda.h, so that no CUDA toolkit is needed.
using CUresult = int;
using CUdevice = int;
using CUcontext = struct FakeContext*;
using CUstream = void*;
using CUdeviceptr = unsigned long long;

namespace {

constexpr CUresult kSuccess = 0;
constexpr CUresult kInvalidValue = 1;
constexpr CUresult kOutOfMemory = 2;
constexpr CUresult kNotSupported = 801;
constexpr int kDevices = 2;
constexpr size_t kPage = 4096;
constexpr size_t kPitch = 512;  // as wide as on real devices, so that no row is as long as it says

enum MemoryType : unsigned { kHost = 1, kDevice = 2 };

struct Copy2D {  // CUDA_MEMCPY2D
  size_t from_x, from_y;
  MemoryType from_type;
  const void* from_host;
  CUdeviceptr from_device;
  void* from_array;
  size_t from_pitch;
  size_t to_x, to_y;
  MemoryType to_type;
  void* to_host;
  CUdeviceptr to_device;
  void* to_array;
  size_t to_pitch;
  size_t width, height;
};

std::mutex mutex;
FakeDriverCounts counts{};
std::map<CUdeviceptr, size_t> memory;  // bytes, whole pages

}  // namespace

struct FakeContext {
  CUdevice device;
};

namespace {

FakeContext primary[kDevices] = {{0}, {1}};
thread_local std::vector<CUcontext> current;

/// Opens device memory for as long as it lives; `mutex` is held.
class Opened {
 public:
  explicit Opened(CUdeviceptr at) {
    auto found = memory.upper_bound(at);
    if (found != memory.begin() && at < (--found)->first + found->second) {
      start_ = reinterpret_cast<void*>(found->first);
      size_ = found->second;
      mprotect(start_, size_, PROT_READ | PROT_WRITE);
    }
  }
  ~Opened() {
    if (start_ != nullptr) {
      mprotect(start_, size_, PROT_NONE);
    }
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  bool ok() const { return start_ != nullptr; }

 private:
  void* start_ = nullptr;
  size_t size_ = 0;
};

CUresult allocate(CUdeviceptr* pointer, size_t bytes) {
  const size_t whole = (bytes + kPage - 1) / kPage * kPage;
  void* pages = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || current.empty()) {
    return kOutOfMemory;
  }
  const std::lock_guard lock(mutex);
  *pointer = reinterpret_cast<CUdeviceptr>(pages);
  memory[*pointer] = whole;
  ++counts.allocations;
  return kSuccess;
}

CUresult copy(const Copy2D& what) {
  const std::lock_guard lock(mutex);
  const bool from_device = what.from_type == kDevice;
  const bool to_device = what.to_type == kDevice;
  const Opened from(from_device ? what.from_device : 0);
  const Opened to(to_device ? what.to_device : 0);
  if (current.empty() || from.ok() != from_device || to.ok() != to_device) {
    return kInvalidValue;
  }
  const auto* source = static_cast<const char*>(
      from_device ? reinterpret_cast<const void*>(what.from_device) : what.from_host);
  auto* target =
      static_cast<char*>(to_device ? reinterpret_cast<void*>(what.to_device) : what.to_host);
  for (size_t row = 0; row < what.height; ++row) {
    std::memcpy(target + (what.to_y + row) * what.to_pitch + what.to_x,
                source + (what.from_y + row) * what.from_pitch + what.from_x, what.width);
  }
  counts.downloads += from_device && !to_device ? 1 : 0;
  counts.uploads += to_device && !from_device ? 1 : 0;
  counts.copies += to_device && from_device ? 1 : 0;
  return kSuccess;
}

bool known(CUdevice device) {
  return device >= 0 && device < kDevices;
}

}  // namespace

#define FAKE extern "C" __attribute__((visibility("default")))

FAKE FakeDriverCounts fake_driver_counts() {
  const std::lock_guard lock(mutex);
  return counts;
}

FAKE void fake_driver_read(void* to, const void* device_memory, size_t bytes) {
  const std::lock_guard lock(mutex);
  const Opened opened(reinterpret_cast<CUdeviceptr>(device_memory));
  std::memcpy(to, device_memory, bytes);
}

FAKE CUresult cuInit(unsigned) {
  return kSuccess;
}
FAKE CUresult cuDriverGetVersion(int* version) {
  return *version = 13000, kSuccess;
}
FAKE CUresult cuGetErrorName(CUresult, const char** text) {
  return *text = "fake", kSuccess;
}
FAKE CUresult cuGetErrorString(CUresult, const char** text) {
  return *text = "fake", kSuccess;
}

FAKE CUresult cuDeviceGetCount(int* count) {
  return *count = kDevices, kSuccess;
}
FAKE CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return known(ordinal) ? kSuccess : kInvalidValue;
}
FAKE CUresult cuDeviceGetName(char* name, int size, CUdevice) {
  std::strncpy(name, "fake GPU", static_cast<size_t>(size));
  return kSuccess;
}
FAKE CUresult cuDeviceGetAttribute(int* value, int, CUdevice) {
  *value = static_cast<int>(kPitch);
  return kSuccess;
}
FAKE CUresult cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) {
  return *can = 0, kSuccess;
}

FAKE CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (!known(device)) {
    return kInvalidValue;
  }
  const std::lock_guard lock(mutex);
  ++counts.primary_holders;
  *context = &primary[device];
  return kSuccess;
}
FAKE CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
  const std::lock_guard lock(mutex);
  --counts.primary_holders;
  return kSuccess;
}

FAKE CUresult cuCtxCreate_v2(CUcontext* context, unsigned, CUdevice device) {
  const std::lock_guard lock(mutex);
  ++counts.contexts;
  current.push_back(*context = new FakeContext{device});
  return kSuccess;
}
FAKE CUresult cuCtxDestroy_v2(CUcontext context) {
  const std::lock_guard lock(mutex);
  --counts.contexts;
  delete context;
  return kSuccess;
}
FAKE CUresult cuCtxPushCurrent_v2(CUcontext context) {
  current.push_back(context);
  return kSuccess;
}
FAKE CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  if (current.empty()) {
    return kInvalidValue;
  }
  if (context != nullptr) {
    *context = current.back();
  }
  current.pop_back();
  return kSuccess;
}
FAKE CUresult cuCtxEnablePeerAccess(CUcontext, unsigned) {
  return kNotSupported;
}
FAKE CUresult cuCtxDisablePeerAccess(CUcontext) {
  return kNotSupported;
}

FAKE CUresult cuCtxSynchronize() {
  return kSuccess;
}

FAKE CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  return allocate(pointer, bytes);
}
FAKE CUresult cuMemAllocPitch_v2(CUdeviceptr* pointer, size_t* pitch, size_t width, size_t height,
                                 unsigned) {
  *pitch = (width + kPitch) / kPitch * kPitch;
  return allocate(pointer, *pitch * height);
}
FAKE CUresult cuMemFree_v2(CUdeviceptr pointer) {
  const std::lock_guard lock(mutex);
  const auto found = memory.find(pointer);
  if (found == memory.end()) {
    return kInvalidValue;
  }
  munmap(reinterpret_cast<void*>(pointer), found->second);
  memory.erase(found);
  --counts.allocations;
  return kSuccess;
}
FAKE CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) {
  *pointer = ::operator new(bytes);
  return kSuccess;
}
FAKE CUresult cuMemFreeHost(void* pointer) {
  ::operator delete(pointer);
  return kSuccess;
}
FAKE CUresult cuMemcpy2D_v2(const Copy2D* what) {
  return copy(*what);
}
FAKE CUresult cuMemcpy2DAsync_v2(const Copy2D* what, CUstream) {
  return copy(*what);
}

FAKE CUresult cuStreamCreate(CUstream* stream, unsigned) {
  *stream = new int;
  return kSuccess;
}
FAKE CUresult cuStreamDestroy_v2(CUstream stream) {
  delete static_cast<int*>(stream);
  return kSuccess;
}
FAKE CUresult cuStreamDestroy(CUstream stream) {
  return cuStreamDestroy_v2(stream);
}
FAKE CUresult cuStreamSynchronize(CUstream) {
  return kSuccess;
}

// Everything is done at once.
FAKE CUresult cuEventCreate(void** event, unsigned) {
  return *event = nullptr, kSuccess;
}
FAKE CUresult cuEventDestroy_v2(void*) {
  return kSuccess;
}
FAKE CUresult cuEventRecord(void*, CUstream) {
  return kSuccess;
}
FAKE CUresult cuEventSynchronize(void*) {
  return kSuccess;
}

// Only looked for.
#define NOT_THERE(name)   \
  FAKE CUresult name() {  \
    return kNotSupported; \
  }
NOT_THERE(cuCtxGetLimit)
NOT_THERE(cuCtxSetLimit)
NOT_THERE(cuMemcpyDtoD_v2)
NOT_THERE(cuMemcpyDtoDAsync_v2)
NOT_THERE(cuMemcpyDtoH_v2)
NOT_THERE(cuMemcpyDtoHAsync_v2)
NOT_THERE(cuMemcpyHtoD_v2)
NOT_THERE(cuMemcpyHtoDAsync_v2)
NOT_THERE(cuMemsetD2D8_v2)
NOT_THERE(cuMemsetD2D8Async)
NOT_THERE(cuMemsetD2D16_v2)
NOT_THERE(cuMemsetD2D16Async)
NOT_THERE(cuMemsetD2D32_v2)
NOT_THERE(cuMemsetD2D32Async)
NOT_THERE(cuModuleLoadData)
NOT_THERE(cuModuleUnload)
NOT_THERE(cuModuleGetFunction)
NOT_THERE(cuTexObjectCreate)
NOT_THERE(cuTexObjectDestroy)
NOT_THERE(cuLaunchKernel)
NOT_THERE(cuGraphicsMapResources)
NOT_THERE(cuGraphicsUnmapResources)
NOT_THERE(cuGraphicsResourceSetMapFlags)
NOT_THERE(cuGraphicsResourceSetMapFlags_v2)
NOT_THERE(cuGraphicsSubResourceGetMappedArray)
NOT_THERE(cuGraphicsResourceGetMappedPointer_v2)
NOT_THERE(cuGraphicsUnregisterResource)
NOT_THERE(cuGraphicsGLRegisterImage)
NOT_THERE(cuGraphicsGLRegisterBuffer)
NOT_THERE(cuGLGetDevices_v2)
NOT_THERE(cuIpcGetEventHandle)
NOT_THERE(cuIpcOpenEventHandle)
NOT_THERE(cuIpcGetMemHandle)
NOT_THERE(cuIpcOpenMemHandle)
NOT_THERE(cuIpcCloseMemHandle)
