// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "preprocess/image.h"
#include "vlm/types.h"

namespace vlm {

/// A picture and what it becomes.
struct PlannedPicture {
  std::shared_ptr<const GpuPicture> picture;
  TileGrid grid;
  std::vector<ImagePlan> plans;
};

/// Pictures that lie on the engine's GPU, and what becomes of them there. One thread at a time. A
/// picture is read when a call returns, and no longer needed. Failures are thrown as Failure.
class DevicePictures {
 public:
  virtual ~DevicePictures() = default;

  /// N of the GPU's name cuda:N.
  virtual int device() const = 0;

  /// The picture's upright pixels, in the host's memory.
  virtual Frame fetch(const GpuPicture& picture) = 0;

  /// Makes the inputs of all pictures, one after the other: float32 [images, 3, height, width],
  /// bit-equal to preprocess_picture()'s of the fetched frames. All plans are of one size.
  virtual std::shared_ptr<const DevicePixels> make(const std::vector<PlannedPicture>& pictures,
                                                   const PixelLevels& levels) = 0;
};

}  // namespace vlm
