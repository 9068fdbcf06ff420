// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// GStreamer's words for how a picture lies in memory in the engine's. All of it pure.

#include <gst/video/video.h>

#include <optional>

#include "vlm/gpu_picture.h"

namespace gstvlm {

/// What the colour matrix and range of `info` make of numbers in its format.
vlm::YuvMatrix matrix_of(const GstVideoInfo& info);

vlm::PictureTurn turn_of(GstVideoOrientationMethod method);

/// Where the frame's pixels are, in the plain cases that a GPU turns into the same bytes as
/// FrameConverter does: NV12 with colour differences between the rows, and full-range RGB of 8 bits
/// with or without a fourth byte; progressive, with square pixels. Nothing for any other. Metadata
/// of the buffer beside the frame's are the caller's.
std::optional<vlm::PictureLayout> plain_layout(const GstVideoFrame& frame,
                                               GstVideoOrientationMethod method);

}  // namespace gstvlm
