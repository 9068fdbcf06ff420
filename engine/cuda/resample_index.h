// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "cuda/kernels.h"
#include "kernels/host_device.h"

namespace vlm {

// The two passes of a resizing, pixel by pixel, in the integers of preprocess/resample.cpp.

/// One of three bytes that stand for a pixel of the canvas.
VLM_HOST_DEVICE inline int canvas_byte(const AcrossArgs& args, int64_t x, int64_t y, int channel) {
  const int64_t column = x - args.left, row = y - args.top;
  if (column < 0 || column >= args.width || row < 0 || row >= args.height) {
    return args.fill[channel];
  }
  return args.rgb[(row * args.width + column) * 3 + channel];
}

/// Makes one pixel of AcrossArgs::out.
VLM_HOST_DEVICE inline void across_pixel(const AcrossArgs& args, int64_t x, int64_t row) {
  const Taps::Span span = args.taps.spans[x];
  const int32_t* weights = args.taps.weights + x * args.taps.stride;
  for (int channel = 0; channel < 3; ++channel) {
    int32_t sum = kTapHalf;
    for (int64_t i = 0; i < span.count; ++i) {
      sum += canvas_byte(args, span.first + i, args.first_row + row, channel) * weights[i];
    }
    args.out[(row * args.columns + x) * 3 + channel] = tapped_byte(sum);
  }
}

/// One byte of the window.
VLM_HOST_DEVICE inline int window_byte(const AlongArgs& args, int64_t x, int64_t y, int channel) {
  const Taps::Span span = args.taps.spans[y];
  const int32_t* weights = args.taps.weights + y * args.taps.stride;
  const uint8_t* in = args.in + ((span.first - args.first_row) * args.columns + x) * 3 + channel;
  int32_t sum = kTapHalf;
  for (int64_t i = 0; i < span.count; ++i, in += args.columns * 3) sum += *in * weights[i];
  return tapped_byte(sum);
}

/// Makes the three numbers of one pixel of AlongArgs::out.
VLM_HOST_DEVICE inline void along_pixel(const AlongArgs& args, int64_t x, int64_t y) {
  const int64_t column = x - args.left, row = y - args.top;
  const bool inside = column >= 0 && column < args.columns && row >= 0 && row < args.rows;
  for (int channel = 0; channel < 3; ++channel) {
    const int byte = inside ? window_byte(args, column, row, channel) : 0;
    args.out[(channel * args.out_height + y) * args.out_width + x] =
        args.levels[channel * 256 + byte];
  }
}

}  // namespace vlm
