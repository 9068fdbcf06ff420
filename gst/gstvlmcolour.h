// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Luma and colour differences to red, green and blue, without a copy of the whole picture between.

#include <gst/video/video.h>

#include <cstdint>
#include <vector>

namespace gstvlm {

/// The pixels of AYUV or AYUV64, whichever `info` says, in its size, stride, matrix and range, as
/// 8-bit RGB. Reentrant.
std::vector<uint8_t> rgb_of_packed(const std::vector<uint8_t>& packed, const GstVideoInfo& info);

/// The frame's pixels where it is 4:2:0 of 8 bits in the layouts of most decoders (I420, YV12, and
/// NV12 with colour differences between the rows) and progressive; else nothing. Byte for byte what
/// GStreamer's converter to AYUV and rgb_of_packed() make of it. Reentrant.
std::vector<uint8_t> rgb_of_planes(const GstVideoFrame& frame);

}  // namespace gstvlm
