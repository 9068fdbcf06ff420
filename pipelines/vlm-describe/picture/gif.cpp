// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <array>
#include <optional>

#include "picture/codec.h"

namespace describe {

namespace {

constexpr const char* kShort = "the file ends in the middle of the picture";

struct Palette {
  std::array<uint8_t, 256 * 3> rgb{};  // entries that the file lacks are black
};

/// The structure of a GIF file up to its first picture.
struct GifReader {
  Data data;
  size_t at = 0;

  bool has(size_t size) const { return data.size() - at >= size; }
  uint8_t u8() { return data[at++]; }
  uint32_t u16() {
    at += 2;
    return le16(&data[at - 2]);
  }
  /// Passes over blocks up to the empty one; false at the end of the file.
  bool skip_blocks() {
    while (has(1)) {
      const size_t size = u8();
      if (size == 0) return true;
      if (!has(size)) return false;
      at += size;
    }
    return false;
  }
  std::optional<Palette> palette(uint8_t flags) {
    const size_t size = size_t{3} << ((flags & 7) + 1);
    if (!has(size)) return std::nullopt;
    Palette palette;
    std::copy_n(data.begin() + static_cast<ptrdiff_t>(at), size, palette.rgb.begin());
    at += size;
    return palette;
  }
};

/// Codes of growing width from the file's blocks.
class CodeReader {
 public:
  explicit CodeReader(GifReader& file) : file_(file) {}

  int next(int width) {
    while (bits_ < width) {
      if (left_ == 0) {
        if (!file_.has(1)) return -1;
        left_ = file_.u8();
        if (left_ == 0) return -1;
      }
      if (!file_.has(1)) return -1;
      buffer_ |= uint32_t{file_.u8()} << bits_;
      bits_ += 8;
      --left_;
    }
    const int code = static_cast<int>(buffer_ & ((1u << width) - 1));
    buffer_ >>= width;
    bits_ -= width;
    return code;
  }

 private:
  GifReader& file_;
  uint32_t buffer_ = 0;
  int bits_ = 0;
  size_t left_ = 0;
};

/// LZW: writes up to out.size() palette indices; null where all were written, else why not.
const char* decompress(GifReader& file, std::vector<uint8_t>& out) {
  if (!file.has(1)) return kShort;
  const int start_bits = file.u8();
  if (start_bits < 1 || start_bits > 11) return "its code size is out of range";
  constexpr int kMaxCodes = 4096;
  std::array<uint16_t, kMaxCodes> prefix{};
  std::array<uint8_t, kMaxCodes> suffix{};
  std::array<uint8_t, kMaxCodes + 1> stack{};
  const int clear = 1 << start_bits;
  const int end = clear + 1;
  int bits = start_bits + 1, next = end + 1, previous = -1;
  uint8_t first = 0;
  size_t written = 0;
  CodeReader codes(file);
  while (written < out.size()) {
    const int code = codes.next(bits);
    if (code < 0 || code == end) return kShort;
    if (code == clear) {
      bits = start_bits + 1, next = end + 1, previous = -1;
      continue;
    }
    if (code > next || (code == next && previous < 0)) return "it holds an impossible code";
    size_t depth = 0;
    int walk = code;
    if (code == next) {
      stack[depth++] = first;
      walk = previous;
    }
    for (; walk >= clear; walk = prefix[static_cast<size_t>(walk)]) {
      stack[depth++] = suffix[static_cast<size_t>(walk)];
    }
    first = static_cast<uint8_t>(walk);
    stack[depth++] = first;
    if (previous >= 0 && next < kMaxCodes) {
      prefix[static_cast<size_t>(next)] = static_cast<uint16_t>(previous);
      suffix[static_cast<size_t>(next)] = first;
      if (++next == 1 << bits && bits < 12) ++bits;
    }
    previous = code;
    while (depth > 0 && written < out.size()) out[written++] = stack[--depth];
  }
  return nullptr;
}

/// The row that the n-th stored row of an interlaced picture belongs to.
uint32_t interlaced_row(uint32_t n, uint32_t height) {
  for (const auto& [start, step] : {std::pair{0u, 8u}, {4u, 8u}, {2u, 4u}, {1u, 2u}}) {
    const uint32_t rows = height > start ? (height - start + step - 1) / step : 0;
    if (n < rows) return start + n * step;
    n -= rows;
  }
  return 0;
}

struct Picture {
  uint32_t x = 0, y = 0, width = 0, height = 0;
  bool interlaced = false;
};

/// Stops behind the first picture's descriptor.
const char* find_picture(GifReader& file, Picture& picture, std::optional<Palette>& palette,
                         int& transparent) {
  while (file.has(1)) {
    const uint8_t kind = file.u8();
    if (kind == ';') return "it holds no picture";
    if (kind == '!') {
      if (!file.has(6)) return kShort;
      const bool control = file.data[file.at] == 0xf9 && file.data[file.at + 1] >= 4;
      if (control && (file.data[file.at + 2] & 1) != 0) transparent = file.data[file.at + 5];
      ++file.at;
      if (!file.skip_blocks()) return kShort;
    } else if (kind == ',') {
      if (!file.has(9)) return kShort;
      picture.x = file.u16(), picture.y = file.u16();
      picture.width = file.u16(), picture.height = file.u16();
      const uint8_t flags = file.u8();
      picture.interlaced = (flags & 64) != 0;
      if ((flags & 128) != 0) {
        palette = file.palette(flags);
        if (!palette) return kShort;
      }
      return nullptr;
    }
  }
  return kShort;
}

/// Without any palette the indices are shades of grey.
Palette grey_palette() {
  Palette palette;
  for (size_t i = 0; i < palette.rgb.size(); ++i) palette.rgb[i] = static_cast<uint8_t>(i / 3);
  return palette;
}

}  // namespace

/// The first picture on its canvas; the canvas around it takes the transparent index, or 0.
RawResult decode_gif(Data data) {
  GifReader file{data, 6};
  if (!file.has(7)) return broken("GIF", kShort);
  uint32_t width = file.u16(), height = file.u16();
  const uint8_t flags = file.u8();
  file.at += 2;
  std::optional<Palette> palette;
  if ((flags & 128) != 0) {
    palette = file.palette(flags);
    if (!palette) return broken("GIF", kShort);
  }
  Picture inner;
  int transparent = 0;
  if (const char* why = find_picture(file, inner, palette, transparent)) return broken("GIF", why);
  width = std::max(width, inner.x + inner.width);
  height = std::max(height, inner.y + inner.height);
  if (vlm::Status size = check_size("GIF", width, height); !size) return size.error();
  std::vector<uint8_t> indices(size_t{inner.width} * inner.height);
  if (const char* why = indices.empty() ? nullptr : decompress(file, indices)) {
    return broken("GIF", why);
  }
  if (!palette) palette = grey_palette();
  RawPicture picture;
  picture.width = static_cast<int>(width);
  picture.height = static_cast<int>(height);
  picture.rgb.resize(size_t{width} * height * 3);
  auto put = [&](size_t pixel, uint8_t index) {
    std::copy_n(&palette->rgb[size_t{index} * 3], 3, &picture.rgb[pixel * 3]);
  };
  if (inner.width != width || inner.height != height) {
    for (size_t i = 0; i < size_t{width} * height; ++i) put(i, static_cast<uint8_t>(transparent));
  }
  for (uint32_t n = 0; n < inner.height; ++n) {
    const uint32_t y = inner.y + (inner.interlaced ? interlaced_row(n, inner.height) : n);
    for (uint32_t x = 0; x < inner.width; ++x) {
      put(size_t{y} * width + inner.x + x, indices[size_t{n} * inner.width + x]);
    }
  }
  return picture;
}

}  // namespace describe
