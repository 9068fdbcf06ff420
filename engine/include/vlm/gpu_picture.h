// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <memory>

namespace vlm {

/// How a stored picture is turned to stand upright: pixel (x, y) of the upright one is stored in
/// column x of row y, or with `swap` in column y of row x; columns counted `from_right`, rows
/// `from_bottom`.
struct PictureTurn {
  bool swap = false;
  bool from_right = false;
  bool from_bottom = false;
};

/// What luma and colour differences of 8 bits (16 in a host's own use) make of red, green and blue
/// from 0 to 255, before rounding:
///   red = y + red · cr, green = y - green_b · cb - green_r · cr, blue = y + blue · cb,
/// where y = luma · (Y - offset[0]), cb = Cb - offset[1], cr = Cr - offset[2].
struct YuvMatrix {
  int offset[3] = {0, 0, 0};
  float luma = 1, red = 0, blue = 0, green_b = 0, green_r = 0;
};

/// How a picture lies in memory: 8 bits a sample, square pixels, whole frames. Plain data.
struct PictureLayout {
  enum class Format {
    kNv12,  ///< plane 0: Y; plane 1: Cb and Cr for each two by two pixels (the last may be alone)
    kRgb    ///< plane 0: full-range red, green and blue in pixels of `pixel_bytes`
  };
  Format format = Format::kRgb;
  int width = 0;   ///< pixels as stored, > 0
  int height = 0;  ///< > 0
  const uint8_t* planes[2] = {nullptr, nullptr};
  int64_t strides[2] = {0, 0};  ///< bytes from row to row
  int pixel_bytes = 3;          ///< kRgb
  int rgb[3] = {0, 1, 2};       ///< kRgb: which byte of a pixel is red, green, blue
  YuvMatrix matrix;             ///< kNv12
  bool cosited = false;         ///< kNv12: Cb and Cr lie on the left pixel of two, not between them
  PictureTurn turn;
};

/// A picture in a GPU's memory, in the primary context. It is complete: whoever hands it on has
/// waited for what writes it. Immutable while an owner is held.
struct GpuPicture {
  int device = 0;  ///< N of cuda:N
  PictureLayout layout;
  std::shared_ptr<const void> owner;  ///< keeps the memory; let go of on any thread

  int upright_width() const { return layout.turn.swap ? layout.height : layout.width; }
  int upright_height() const { return layout.turn.swap ? layout.width : layout.height; }
};

}  // namespace vlm
