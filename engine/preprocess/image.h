// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <vector>

#include "loader/config.h"
#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// Pictures as the tower takes them: [images, channels, height, width], float32, row-major.
struct PixelTensor {
  int64_t images = 0;
  int64_t channels = 3;
  int64_t height = 0;
  int64_t width = 0;
  std::vector<float> values;
};

/// Pad, resize, crop, rescale and normalise one frame, bit-equal to the reference's PIL image
/// processor. Reentrant. Errors: a frame of zero size or with too few bytes, a result that is not
/// the tower's size.
Result<PixelTensor> preprocess_image(const Frame& frame, const PreprocessorConfig& config,
                                     AspectRatio aspect_ratio);

}  // namespace vlm
