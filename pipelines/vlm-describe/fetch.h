// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vlm/error.h"

namespace describe {

/// Everything that a URI holds, through GStreamer's own source for it. Errors complete the sentence
/// "URI …"; ErrorKind::kCancelled where the user interrupted. Thread-bound; needs gst_init().
vlm::Result<std::vector<uint8_t>> fetch(const std::string& uri, uint64_t max_bytes);

}  // namespace describe
