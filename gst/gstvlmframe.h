// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// GstBuffer to vlm::Frame: what a viewer would see of it, in 8-bit RGB, or where it lies on a GPU.

#include <gst/video/video.h>

#include <memory>
#include <string>
#include <vector>

#include "gstvlm-utils.h"
#include "vlm/types.h"

namespace gstvlm {

/// How video is to be looked at: its format and the turn that its tags ask for.
struct Look {
  GstVideoInfo info;
  GstVideoOrientationMethod orientation = GST_VIDEO_ORIENTATION_IDENTITY;
};

/// Whether `buffer` holds all bytes of a picture in the look's format, or in that of its video
/// metadata; ErrorKind::kInvalidArgument else. Maps nothing. Reentrant.
vlm::Status check_buffer(const Look& look, GstBuffer* buffer);

/// Converts frames of one format. Colour matrix and range are those of the caps; crop metadata, the
/// pixel aspect ratio and the orientation are applied; of an interlaced frame the picture is the
/// field that was taken first, its lines scaled to the frame's height, or the top one where the
/// last line of the bottom one's colours is missing. What lies on a device is read through system
/// memory, but for plain frames on the GPU that `gpu` names as ModelInfo::device does, which stay
/// there. Thread-bound.
class FrameConverter {
 public:
  explicit FrameConverter(const Look& look, std::string gpu = {});
  ~FrameConverter();
  FrameConverter(const FrameConverter&) = delete;
  FrameConverter& operator=(const FrameConverter&) = delete;

  /// ErrorKind::kInvalidArgument for a buffer that is too small for the format or cannot be read.
  vlm::Result<vlm::Frame> convert(GstBuffer* buffer);

 private:
  struct Region {
    int x = 0, y = 0, width = 0, height = 0;
    int lines = 0;  // of the picture that is made of it
    bool operator==(const Region&) const = default;
  };
  struct FreeConverter {
    void operator()(GstVideoConverter* converter) const { gst_video_converter_free(converter); }
  };

  bool take_plain(const GstVideoFrame& frame, const Region& region, vlm::Frame& picture) const;
  bool run(const GstVideoFrame& frame, vlm::Frame& picture);
  bool prepare(const GstVideoInfo& mapped, const Region& region);
  static Region visible(const GstVideoFrame& frame, GstBuffer* buffer);
  static Region in_lines_of(const GstVideoFrame& seen, const GstVideoFrame& frame, Region region);

  Look look_;
  const std::string gpu_;
  GstVideoInfo in_;  // what converter_ was made for
  GstVideoInfo out_;
  Region region_;
  std::unique_ptr<GstVideoConverter, FreeConverter> converter_;
  std::vector<uint8_t> packed_;  // its output, before the colour matrix
  std::vector<uint8_t> spare_;   // turns by a quarter write here
};

}  // namespace gstvlm
