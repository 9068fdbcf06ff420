// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

namespace describe {

/// Where the parts of the installation lie, found from where this program lies: in the build
/// directory, or in an installed tree, which may have been moved. Reentrant.
struct Places {
  std::string engine_library;  ///< $VLM_ENGINE_LIBRARY where set
  std::string plugin;          ///< GStreamer's plugin file; it need not exist
  std::string demo_model;      ///< directory
};

Places find_places();

}  // namespace describe
