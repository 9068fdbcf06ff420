// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "loader/config.h"
#include "preprocess/resample.h"
#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// How one picture lies in the tower's inputs: as a whole first, then as rows × columns tiles,
/// row by row. Without tiles rows and columns are 0.
struct TileGrid {
  int64_t height = 0;  ///< of the picture, pixels
  int64_t width = 0;
  int64_t rows = 0;
  int64_t columns = 0;

  int64_t images() const { return 1 + rows * columns; }
};

/// Pictures as the tower takes them: [images, channels, height, width], float32, row-major.
struct PixelTensor {
  int64_t images = 0;
  int64_t channels = 3;
  int64_t height = 0;
  int64_t width = 0;
  std::vector<float> values;
  std::vector<TileGrid> pictures;  ///< in the order of their images
};

/// Height and width of every picture that the configuration makes, or nothing where they depend on
/// the frame. Reentrant.
std::optional<std::pair<int64_t, int64_t>> output_size(const PreprocessorConfig& config);

/// Error kInvalidArgument: zero size, or bytes that don't agree with the size.
Status check_frame(const Frame& frame);

/// Error kInvalidArgument: resizing the frame to this height and width would take more memory than
/// is sane.
Status check_resize(const Frame& frame, std::pair<int64_t, int64_t> size);

/// Resizes, crops, rescales and normalises one picture as the configuration says and appends it to
/// the images of `pixels`, which are of the same size. Counts no picture: that's the caller's.
void append_image(PixelTensor& pixels, const BitmapView& picture, const PreprocessorConfig& config);

/// Pad, resize, crop, rescale and normalise one frame, bit-equal to the reference's PIL image
/// processor. `aspect_ratio`: auto does what the configuration says, pad pads to a square of the
/// mean colour first, crop never pads; anyres is preprocess_picture()'s. Reentrant. Errors: a frame
/// of zero size or whose bytes don't agree with its size, an aspect ratio whose result would be so
/// large that memory runs out.
Result<PixelTensor> preprocess_image(const Frame& frame, const PreprocessorConfig& config,
                                     AspectRatio aspect_ratio);

}  // namespace vlm
