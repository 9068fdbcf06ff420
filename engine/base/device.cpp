// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/device.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <charconv>
#include <filesystem>
#include <string_view>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/failure.h"
#include "base/host_memory.h"
#include "cuda/module.h"
#include "kernels/product.h"

namespace vlm {
namespace {

namespace fs = std::filesystem;

// Beside the library that holds libtorch's CPU half; registers the CUDA backend when it is opened.
// Nothing may ask libtorch for CUDA before, since it remembers the first answer.
void load_torch_cuda() {
  Dl_info self;
  const auto symbol = reinterpret_cast<void*>(&at::globalContext);
  std::string why = "its libraries were not found";
  if (dladdr(symbol, &self) != 0) {
    const fs::path library = fs::path(self.dli_fname).parent_path() / "libtorch_cuda.so";
    if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr && at::hasCUDA()) return;
    if (const char* reason = dlerror(); reason != nullptr) why = reason;
  }
  throw Failure(ErrorKind::kDevice,
                "libtorch's CUDA half could not be opened (" + why +
                    "): run pipelines/setup.sh on this machine again, or use the device cpu");
}

int gpu_count() {
  const CudaModule* module = cuda_module();
  return module != nullptr ? module->device_count() : 0;
}

c10::Device gpu(int index) {
  load_torch_cuda();
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}

// Whether it runs faster than float32, which takes twice the memory.
bool bfloat16_serves() {
#if defined(__x86_64__)
  return !product_families().empty();
#elif defined(__aarch64__) && defined(HWCAP2_BF16)
  return (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
#else
  return false;
#endif
}

}  // namespace

c10::Device resolve_device(const std::string& name) {
  const int count = name == "cpu" ? 0 : gpu_count();
  if (name == "cpu" || (name == "auto" && count == 0)) return c10::Device(c10::DeviceType::CPU);
  if (name == "auto") return gpu(0);
  constexpr std::string_view kPrefix = "cuda";
  int index = 0;
  bool valid = name == kPrefix;
  if (name.starts_with("cuda:")) {
    const char* begin = name.data() + kPrefix.size() + 1;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(begin, end, index);
    valid = parsed.ec == std::errc() && parsed.ptr == end && index >= 0;
  }
  if (!valid) {
    throw Failure(ErrorKind::kInvalidArgument,
                  "unknown device " + name + ": use auto, cpu, cuda or cuda:N");
  }
  if (index >= count) {
    throw Failure(ErrorKind::kDevice,
                  "device " + name + " was asked for, but this machine offers " +
                      std::to_string(count) +
                      " NVIDIA GPUs to a build with GPU support: use the device cpu or auto");
  }
  return gpu(index);
}

DType resolve_dtype(DType wanted, DType stored, c10::Device device) {
  if (wanted == DType::kAuto) {
    if (!device.is_cpu()) return stored;
    return bfloat16_serves() ? DType::kBFloat16 : DType::kFloat32;
  }
  return wanted;
}

int64_t available_memory(c10::Device device) {
  if (!device.is_cpu()) {
    size_t free_bytes = 0;
    const CudaModule* module = cuda_module();
    if (module == nullptr || !module->memory_free(device.index(), &free_bytes)) return 0;
    return static_cast<int64_t>(free_bytes);
  }
  return available_host_memory();
}

c10::Stream work_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

void* current_stream(c10::Device device) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  return guard.getStream(device).native_handle();
}

}  // namespace vlm
