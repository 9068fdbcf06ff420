// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vlm/error.h"
#include "vlm/types.h"

namespace describe {

/// Still pictures, decoded to 8-bit RGB with the values that Pillow's `convert("RGB")` gives (alpha
/// dropped, the first frame of an animation) and turned upright by their EXIF orientation.

enum class PictureFormat { kUnknown, kJpeg, kPng, kWebp, kGif, kBmp, kPnm };

/// What is read, for messages.
inline constexpr const char* kPictureFormats = "JPEG, PNG, WebP, GIF, BMP and PNM";

/// Larger pictures are refused before anything is allocated for them.
inline constexpr uint64_t kMaxPixels = 178'956'970;

/// Larger files are refused before they are read, in bytes.
inline constexpr uint64_t kMaxPictureFile = uint64_t{1} << 30;

/// By the first bytes of a file; 12 are enough. Reentrant.
PictureFormat picture_format(std::span<const uint8_t> start);

/// Reentrant. Broken, truncated or oversized data is an error whose message completes the sentence
/// "NAME …".
vlm::Result<vlm::Frame> decode_picture(std::span<const uint8_t> data);

/// The whole file, or why it can't be read (completes "NAME …"). Reentrant.
vlm::Result<std::vector<uint8_t>> read_file(const std::string& path, uint64_t max_bytes);

}  // namespace describe
