// SPDX-License-Identifier: LGPL-2.1-or-later
#include "picture/picture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "picture/codec.h"

namespace describe {

namespace {

bool starts_with(Data data, std::string_view magic, size_t at = 0) {
  return data.size() >= at + magic.size() &&
         std::memcmp(data.data() + at, magic.data(), magic.size()) == 0;
}

RawResult decode_raw(Data data) {
  switch (picture_format(data)) {
    case PictureFormat::kJpeg:
      return decode_jpeg(data);
    case PictureFormat::kPng:
      return decode_png(data);
    case PictureFormat::kWebp:
      return decode_webp(data);
    case PictureFormat::kGif:
      return decode_gif(data);
    case PictureFormat::kBmp:
      return decode_bmp(data);
    case PictureFormat::kPnm:
      return decode_pnm(data);
    case PictureFormat::kUnknown:
      break;
  }
  return vlm::Error{vlm::ErrorKind::kUnsupported,
                    std::string("is not a picture that can be read (") + kPictureFormats + " are)",
                    {}};
}

/// EXIF's eight orientations are the symmetries of the rectangle: 5 to 8 swap the axes.
vlm::Frame upright(RawPicture raw) {
  const int orientation = raw.orientation;
  if (orientation <= 1 || orientation > 8) return {raw.width, raw.height, std::move(raw.rgb)};
  const bool swap = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  vlm::Frame frame;
  frame.width = swap ? raw.height : raw.width;
  frame.height = swap ? raw.width : raw.height;
  frame.rgb.resize(raw.rgb.size());
  uint8_t* out = frame.rgb.data();
  for (int y = 0; y < frame.height; ++y) {
    for (int x = 0; x < frame.width; ++x, out += 3) {
      int from_x = swap ? y : x;
      int from_y = swap ? x : y;
      if (flip_x) from_x = raw.width - 1 - from_x;
      if (flip_y) from_y = raw.height - 1 - from_y;
      std::memcpy(out, &raw.rgb[(static_cast<size_t>(from_y) * raw.width + from_x) * 3], 3);
    }
  }
  return frame;
}

}  // namespace

PictureFormat picture_format(Data start) {
  if (starts_with(start, "\xff\xd8\xff")) return PictureFormat::kJpeg;
  if (starts_with(start, "\x89PNG\r\n\x1a\n")) return PictureFormat::kPng;
  if (starts_with(start, "RIFF") && starts_with(start, "WEBP", 8)) return PictureFormat::kWebp;
  if (starts_with(start, "GIF87a") || starts_with(start, "GIF89a")) return PictureFormat::kGif;
  if (starts_with(start, "BM") && start.size() >= 6) return PictureFormat::kBmp;
  if (start.size() >= 3 && start[0] == 'P' && start[1] >= '1' && start[1] <= '6' &&
      std::strchr(" \t\n\v\f\r#", start[2]) != nullptr && start[2] != 0) {
    return PictureFormat::kPnm;
  }
  return PictureFormat::kUnknown;
}

vlm::Error broken(const char* format, const std::string& why) {
  return {vlm::ErrorKind::kInvalidArgument,
          std::string("is a broken ") + format + " picture: " + why,
          {}};
}

vlm::Status check_size(const char* format, uint64_t width, uint64_t height) {
  if (width == 0 || height == 0) return broken(format, "it has no pixels");
  if (width > kMaxPixels || height > kMaxPixels || width * height > kMaxPixels) {
    return vlm::Error{vlm::ErrorKind::kInvalidArgument,
                      "is too large: " + std::to_string(width) + " × " + std::to_string(height) +
                          " pixels, at most " + std::to_string(kMaxPixels) + " are read",
                      {}};
  }
  return vlm::ok_status();
}

vlm::Result<vlm::Frame> decode_picture(Data data) {
  try {
    RawResult raw = decode_raw(data);
    if (!raw) return raw.error();
    return upright(std::move(*raw));
  } catch (const std::bad_alloc&) {
    return vlm::Error{vlm::ErrorKind::kOutOfMemory, "needs more memory than there is", {}};
  }
}

vlm::Result<std::vector<uint8_t>> read_file(const std::string& path, uint64_t max_bytes) {
  auto failure = [](vlm::ErrorKind kind, const std::string& why) {
    return vlm::Error{kind, why, {}};
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    return failure(vlm::ErrorKind::kNotFound,
                   missing ? "does not exist" : std::string("can't be opened: ") + strerror(errno));
  }
  std::vector<uint8_t> bytes;
  struct stat info = {};
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    if (static_cast<uint64_t>(info.st_size) > max_bytes) {
      close(fd);
      return failure(vlm::ErrorKind::kInvalidArgument,
                     "is too large: " + std::to_string(info.st_size) + " bytes, at most " +
                         std::to_string(max_bytes) + " are read");
    }
    bytes.reserve(static_cast<size_t>(info.st_size));
  }
  uint8_t block[65536];
  ssize_t got = 0;
  while ((got = read(fd, block, sizeof block)) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 || bytes.size() + static_cast<size_t>(got) > max_bytes) break;
    bytes.insert(bytes.end(), block, block + got);
  }
  const int error = errno;
  close(fd);
  if (got < 0) {
    return failure(vlm::ErrorKind::kIo, std::string("can't be read: ") + strerror(error));
  }
  if (got > 0) {
    return failure(vlm::ErrorKind::kInvalidArgument,
                   "is larger than the " + std::to_string(max_bytes) + " bytes that are read");
  }
  return bytes;
}

}  // namespace describe
