// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// GStreamer's words for how a picture lies in memory in the engine's.

#include <gst/video/video.h>

#include <optional>

#include "vlm/gpu_picture.h"

namespace gstvlm {

/// What the colour matrix and range of `info` make of numbers in its format.
vlm::YuvMatrix matrix_of(const GstVideoInfo& info);

vlm::PictureTurn turn_of(GstVideoOrientationMethod method);

/// A buffer's frame, mapped as long as this lives, where that was possible.
struct MappedFrame {
  MappedFrame(const GstVideoInfo& info, GstBuffer* buffer, GstMapFlags flags)
      : mapped(gst_video_frame_map(&frame, &info, buffer, flags) != FALSE) {}
  ~MappedFrame() {
    if (mapped) gst_video_frame_unmap(&frame);
  }
  MappedFrame(const MappedFrame&) = delete;
  MappedFrame& operator=(const MappedFrame&) = delete;

  GstVideoFrame frame;
  const bool mapped;
};

/// Where the frame's pixels are, in the plain cases that a GPU turns into the same bytes as
/// FrameConverter does: NV12 with colour differences between the rows, and full-range RGB of 8 bits
/// with or without a fourth byte; progressive, with square pixels. Nothing for any other. Metadata
/// of the buffer beside the frame's are the caller's.
std::optional<vlm::PictureLayout> plain_layout(const GstVideoFrame& frame,
                                               GstVideoOrientationMethod method);

}  // namespace gstvlm
