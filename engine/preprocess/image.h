// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstdint>
#include <memory>
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

/// Pixels on the engine's GPU, held by the executor's side. Opaque here.
struct DevicePixels {
  virtual ~DevicePixels() = default;
};

/// Pictures as the tower takes them: [images, channels, height, width], float32, row-major.
struct PixelTensor {
  int64_t images = 0;
  int64_t channels = 3;
  int64_t height = 0;
  int64_t width = 0;
  std::vector<float> values;
  std::shared_ptr<const DevicePixels> on_device;  ///< where set, the values; `values` is empty
  std::vector<TileGrid> pictures;                 ///< in the order of their images
};

/// How one input of the tower comes out of a picture: the picture lies on a canvas, which is
/// resized; a window of that lies in the input, where all else is black.
struct ImagePlan {
  Window picture;  ///< where it lies on the canvas, in its own size
  int64_t canvas_width = 0;
  int64_t canvas_height = 0;
  std::array<uint8_t, 3> fill = {0, 0, 0};  ///< the canvas where the picture is not
  int64_t width = 0;                        ///< of the resized canvas
  int64_t height = 0;
  Resample filter = Resample::kBicubic;
  Window window;     ///< of the resized canvas; may be empty
  int64_t left = 0;  ///< of the window in the input
  int64_t top = 0;
  int64_t out_width = 0;  ///< of the input
  int64_t out_height = 0;

  bool padded() const { return canvas_width != picture.width || canvas_height != picture.height; }
};

/// Rescaled and normalised value of each byte of each channel.
using PixelLevels = std::array<std::array<float, 256>, 3>;
PixelLevels pixel_levels(const PreprocessorConfig& config);

/// Height and width of every picture that the configuration makes, or nothing where they depend on
/// the frame. Reentrant.
std::optional<std::pair<int64_t, int64_t>> output_size(const PreprocessorConfig& config);

/// Error kInvalidArgument: zero size, or bytes that don't agree with the size.
Status check_frame(const Frame& frame);

/// Error kInvalidArgument: resizing a frame of height × width to this height and width would take
/// more memory than is sane.
Status check_resize(int64_t height, int64_t width, std::pair<int64_t, int64_t> size);

/// preprocess_image()'s way with a frame of height × width. Errors: its. Reentrant.
Result<ImagePlan> plan_image(int64_t height, int64_t width, const PreprocessorConfig& config,
                             AspectRatio aspect_ratio);

/// Whether append_image() only normalises a picture of this height and width. Reentrant.
bool keeps_size(std::pair<int64_t, int64_t> size, const PreprocessorConfig& config);

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
