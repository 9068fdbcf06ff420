// SPDX-License-Identifier: LGPL-2.1-or-later
#include "places.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace describe {

namespace {

namespace fs = std::filesystem;

/// `installed` as seen from this program, so that an installed tree may be moved.
fs::path relocated(const fs::path& here, const char* installed) {
  const fs::path relative = fs::path(installed).lexically_relative(VLM_BINDIR);
  return here.empty() || relative.empty() ? fs::path(installed)
                                          : (here / relative).lexically_normal();
}

}  // namespace

Places find_places() {
  constexpr const char* kLibrary = "libvlm.so.0";
  constexpr const char* kPlugin = "libgstvlm.so";
  std::error_code ignored;
  const fs::path here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  Places places;
  if (here == fs::path(VLM_BUILD_ROOT) / "pipelines/vlm-describe") {
    places.engine_library = fs::path(VLM_BUILD_ROOT) / "engine" / kLibrary;
    places.plugin = fs::path(VLM_BUILD_ROOT) / "gst" / kPlugin;
    places.demo_model = fs::path(VLM_SOURCE_ROOT) / "examples/demo-model/model";
  } else {
    places.engine_library = relocated(here, VLM_LIBDIR) / kLibrary;
    places.plugin = relocated(here, VLM_PLUGINDIR) / kPlugin;
    places.demo_model = relocated(here, VLM_DATADIR) / "demo-model";
  }
  if (const char* set = std::getenv("VLM_ENGINE_LIBRARY"); set != nullptr && *set != '\0') {
    places.engine_library = set;
  }
  return places;
}

}  // namespace describe
