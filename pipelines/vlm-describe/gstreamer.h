// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

#include "vlm/error.h"

namespace describe {

/// GStreamer, ready with the element vlmdescribe, from `plugin` where that file exists. Later calls
/// do nothing. Thread-bound.
vlm::Status prepare_gstreamer(const std::string& plugin);

}  // namespace describe
