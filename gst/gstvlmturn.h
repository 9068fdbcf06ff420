// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Pictures turned and mirrored as tags say.

#include <gst/video/video.h>

#include <cstdint>
#include <vector>

#include "vlm/types.h"

namespace gstvlm {

/// Turns `frame`, whose pixels are in system memory, as `method` says. Where its sides change
/// places it takes the memory of `spare` and leaves its own there, so that whoever keeps `spare`
/// from frame to frame needs no fresh memory. Reentrant.
void turn(vlm::Frame& frame, GstVideoOrientationMethod method, std::vector<uint8_t>& spare);

}  // namespace gstvlm
