// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda/module.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>

namespace vlm {
namespace {

namespace fs = std::filesystem;

bool driver_present() {
  std::error_code ignored;
  for (const char* path : {"/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/dxg"}) {
    if (fs::exists(path, ignored)) return true;
  }
  return false;
}

// Beside this library where installed, in a folder of its own in a build tree.
const CudaModule* open_module() {
  if (!driver_present()) return nullptr;
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&cuda_module), &self) == 0) return nullptr;
  const fs::path directory = fs::path(self.dli_fname).parent_path();
  for (const fs::path& candidate :
       {directory / "libvlm-cuda.so", directory / "cuda/libvlm-cuda.so"}) {
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) continue;
    using Entry = const CudaModule* (*)(uint32_t);
    const auto entry = reinterpret_cast<Entry>(dlsym(handle, "vlm_cuda_module"));
    const CudaModule* module = entry != nullptr ? entry(kCudaModuleAbi) : nullptr;
    if (module != nullptr && module->device_count() > 0) return module;
    dlclose(handle);
  }
  return nullptr;
}

}  // namespace

const CudaModule* cuda_module() {
  static const CudaModule* const module = open_module();
  return module;
}

}  // namespace vlm
