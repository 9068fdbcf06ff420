// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda/module.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

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

// Where $VLM_CUDA_LIBRARY says, else beside this library (installed) or in a folder of its own
// (build tree).
const CudaModule* open_module() {
  if (!driver_present()) return nullptr;
  std::vector<fs::path> candidates;
  if (const char* given = std::getenv("VLM_CUDA_LIBRARY"); given != nullptr) {
    candidates.emplace_back(given);
  }
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&cuda_module), &self) != 0) {
    const fs::path directory = fs::path(self.dli_fname).parent_path();
    candidates.push_back(directory / "libvlm-cuda.so");
    candidates.push_back(directory / "cuda/libvlm-cuda.so");
  }
  for (const fs::path& candidate : candidates) {
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
