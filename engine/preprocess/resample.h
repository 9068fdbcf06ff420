// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <vector>

#include "preprocess/taps.h"

namespace vlm {

/// 8-bit RGB, rows without padding.
struct Bitmap {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb;  ///< height · width · 3
};

/// The same, held by somebody else.
struct BitmapView {
  int64_t width = 0;
  int64_t height = 0;
  const uint8_t* rgb = nullptr;

  BitmapView(int64_t width_, int64_t height_, const uint8_t* rgb_)
      : width(width_), height(height_), rgb(rgb_) {}
  BitmapView(const Bitmap& bitmap) : BitmapView(bitmap.width, bitmap.height, bitmap.rgb.data()) {}
};

/// PIL's filters by its own numbers.
enum class Resample {
  kNearest = 0,
  kLanczos = 1,
  kBilinear = 2,
  kBicubic = 3,
  kBox = 4,
  kHamming = 5
};

/// A part of a picture, in its pixels.
struct Window {
  int64_t left = 0;
  int64_t top = 0;
  int64_t width = 0;
  int64_t height = 0;
};

/// The part `window` of what `source` is at size width × height, in the arithmetic of Pillow 12
/// (src/libImaging/Resample.c): the horizontal pass first, 8 bits between the passes, 22-bit
/// fixed-point weights; a pass that changes no size only cuts. Pixels outside the window cost
/// nothing, however large the whole would be. Reentrant.
Bitmap resample(const BitmapView& source, int64_t width, int64_t height, Resample filter,
                const Window& window);

/// What resample() makes `count` columns (or rows) from `begin` of, where `in` of them become
/// `out`. A sum over them is at most a byte's, whatever the filter. Reentrant.
Taps resample_taps(int64_t in, int64_t out, int64_t begin, int64_t count, Resample filter);

}  // namespace vlm
