// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "picture/picture.h"

namespace describe {

/// A picture as its file holds it, before it is turned upright.
struct RawPicture {
  int width = 0;             ///< pixels
  int height = 0;            ///< pixels
  int orientation = 1;       ///< EXIF's 1 to 8; anything else counts as 1
  std::vector<uint8_t> rgb;  ///< width · height · 3
};

using Data = std::span<const uint8_t>;
using RawResult = vlm::Result<RawPicture>;

/// One function for each format; reentrant, never throw but std::bad_alloc.
RawResult decode_jpeg(Data data);
RawResult decode_png(Data data);
RawResult decode_webp(Data data);
RawResult decode_gif(Data data);
RawResult decode_bmp(Data data);
RawResult decode_pnm(Data data);

/// "is a broken JPEG picture: WHY".
vlm::Error broken(const char* format, const std::string& why);

/// Refuses empty pictures and those beyond kMaxPixels; null where the size is good.
vlm::Status check_size(const char* format, uint64_t width, uint64_t height);

/// Where orientation is found, in the order in which it counts: EXIF data first, XMP where that
/// says nothing.
class Orientation {
 public:
  /// A TIFF structure, with or without "Exif\0\0" in front of it.
  void exif(Data data);
  void xmp(Data data);
  int value() const { return exif_ ? exif_ : (xmp_ ? xmp_ : 1); }

 private:
  int exif_ = 0;
  int xmp_ = 0;
};

inline uint32_t le16(const uint8_t* p) {
  return p[0] | uint32_t{p[1]} << 8;
}
inline uint32_t le32(const uint8_t* p) {
  return le16(p) | le16(p + 2) << 16;
}

}  // namespace describe
