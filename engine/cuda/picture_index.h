// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/rounded.h"
#include "vlm/gpu_picture.h"

namespace vlm {

// Pixels of pictures as they lie in a decoder's memory, as GStreamer's converter and the element
// make them on a CPU: colour differences interpolated across, rounded, then along, rounded, then
// the colour matrix in float32, every operation rounded.

struct Rgb {
  uint8_t red = 0, green = 0, blue = 0;
};

/// Cb (`which` 0) or Cr (1) of pixel `x` on row `row` of them.
VLM_HOST_DEVICE inline int chroma_across(const PictureLayout& layout, int row, int x, int which) {
  const uint8_t* line = layout.planes[1] + row * layout.strides[1] + which;
  const bool last = x == layout.width - 1;
  const int left = line[(x - 1) / 2 * 2];  // for an odd x its own
  if (x % 2 != 0) {
    if (last) return left;
    const int right = line[x + 1];
    return layout.cosited ? (left + right + 1) >> 1 : (3 * left + right + 2) >> 2;
  }
  const int own = line[x];
  if (x == 0 || layout.cosited) return own;
  return (left + 3 * own + 2) >> 2;
}

/// Cb or Cr of a stored pixel.
VLM_HOST_DEVICE inline int chroma(const PictureLayout& layout, int x, int y, int which) {
  const int row = y / 2;
  const int own = chroma_across(layout, row, x, which);
  if (y == 0 || (y % 2 != 0 && y == layout.height - 1)) return own;
  const int other = chroma_across(layout, y % 2 != 0 ? row + 1 : row - 1, x, which);
  return (3 * own + other + 2) >> 2;
}

VLM_HOST_DEVICE inline Rgb stored_pixel(const PictureLayout& layout, int x, int y) {
  if (layout.format == PictureLayout::Format::kRgb) {
    const uint8_t* pixel = layout.planes[0] + y * layout.strides[0] + x * layout.pixel_bytes;
    return {pixel[layout.rgb[0]], pixel[layout.rgb[1]], pixel[layout.rgb[2]]};
  }
  const YuvMatrix& matrix = layout.matrix;
  const int level = layout.planes[0][y * layout.strides[0] + x];
  const float luma = rounded_product(static_cast<float>(level - matrix.offset[0]), matrix.luma);
  const auto cb = static_cast<float>(chroma(layout, x, y, 0) - matrix.offset[1]);
  const auto cr = static_cast<float>(chroma(layout, x, y, 1) - matrix.offset[2]);
  const float without_blue = rounded_sum(luma, -rounded_product(matrix.green_b, cb));
  return {nearest_byte(rounded_sum(luma, rounded_product(matrix.red, cr))),
          nearest_byte(rounded_sum(without_blue, -rounded_product(matrix.green_r, cr))),
          nearest_byte(rounded_sum(luma, rounded_product(matrix.blue, cb)))};
}

/// Of the picture as a viewer sees it, upright_width() × upright_height().
VLM_HOST_DEVICE inline Rgb upright_pixel(const PictureLayout& layout, int x, int y) {
  const PictureTurn& turn = layout.turn;
  const int along = turn.swap ? y : x;
  const int across = turn.swap ? x : y;
  return stored_pixel(layout, turn.from_right ? layout.width - 1 - along : along,
                      turn.from_bottom ? layout.height - 1 - across : across);
}

}  // namespace vlm
