// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "picture/codec.h"

namespace describe {

namespace {

constexpr const char* kShort = "the file ends in the middle of the picture";
enum Compression : uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

/// Where the three colours lie in a pixel of 16, 24 or 32 bits.
struct Masks {
  uint32_t red = 0, green = 0, blue = 0;
  bool operator==(const Masks&) const = default;
};

struct Header {
  uint64_t width = 0, height = 0;
  bool top_down = false;
  uint32_t bits = 0;
  uint32_t compression = kRaw;
  uint32_t colours = 0;
  size_t palette_at = 0;
  size_t palette_step = 4;
  size_t pixels_at = 0;
  Masks masks;
};

RawResult unsupported(const std::string& what) {
  return vlm::Error{vlm::ErrorKind::kUnsupported, "is a BMP picture with " + what, {}};
}

Masks default_masks(uint32_t bits) {
  if (bits == 16) return {0x7c00, 0x3e0, 0x1f};
  return {0xff0000, 0xff00, 0xff};
}

/// The layouts that the reference reads.
bool known_masks(uint32_t bits, const Masks& m) {
  const Masks kBgr{0xff0000, 0xff00, 0xff}, kRgb{0xff, 0xff00, 0xff0000};
  const Masks kXbgr{0xff000000, 0xff0000, 0xff00}, kBgxr{0xff000000, 0xff00, 0xff};
  if (bits == 16) return m == Masks{0xf800, 0x7e0, 0x1f} || m == Masks{0x7c00, 0x3e0, 0x1f};
  if (bits == 24) return m == kBgr;
  return m == kBgr || m == kRgb || m == kXbgr || m == kBgxr;
}

/// Null where the header is good, else why not.
const char* read_header(Data data, Header& header, uint32_t& header_size) {
  if (data.size() < 18) return kShort;
  header.pixels_at = le32(&data[10]);
  header_size = le32(&data[14]);
  if (data.size() - 14 < header_size) return kShort;
  const uint8_t* h = &data[14];
  if (header_size == 12) {
    header.width = le16(h + 4), header.height = le16(h + 6);
    header.bits = le16(h + 10);
    header.palette_step = 3;
  } else {
    header.width = le32(h + 4);
    const uint32_t height = le32(h + 8);
    header.top_down = (height >> 24) == 0xff;
    header.height = header.top_down ? uint64_t{1} << 32 : height;
    if (header.top_down) header.height -= height;
    header.bits = le16(h + 14);
    header.compression = le32(h + 16);
    header.colours = le32(h + 32);
  }
  header.palette_at = 14 + header_size;
  header.masks = default_masks(header.bits);
  if (header.compression == kBitFields) {
    const size_t at = header_size >= 52 ? 14 + 40 : header.palette_at;
    if (data.size() < at + 12) return kShort;
    header.masks = {le32(&data[at]), le32(&data[at + 4]), le32(&data[at + 8])};
    if (header_size < 52) header.palette_at += 12;
    // No masks at all mean the usual order.
    if (header.masks == Masks{}) header.masks = default_masks(header.bits);
  }
  if (header.bits <= 8 && header.colours == 0) header.colours = 1u << header.bits;
  if (header.pixels_at == 14 + header_size && header.bits <= 8) {
    header.pixels_at += size_t{4} * header.colours;
  }
  if (header.pixels_at == 0) {
    header.pixels_at =
        header.palette_at + (header.bits <= 8 ? header.palette_step * header.colours : 0);
  }
  return nullptr;
}

using Palette = std::array<uint8_t, 256 * 3>;

Palette read_palette(Data data, const Header& header) {
  Palette palette{};
  for (size_t i = 0; i < std::min<size_t>(header.colours, 256); ++i) {
    const size_t at = header.palette_at + i * header.palette_step;
    if (at + 3 > data.size()) break;
    palette[3 * i] = data[at + 2], palette[3 * i + 1] = data[at + 1], palette[3 * i + 2] = data[at];
  }
  return palette;
}

/// One colour of a pixel, its bits stretched to 8.
uint8_t component(uint32_t pixel, uint32_t mask) {
  uint32_t value = pixel & mask;
  while ((mask & 1) == 0) mask >>= 1, value >>= 1;
  return static_cast<uint8_t>(value * 255 / mask);
}

/// Rows in the file's order, RGB.
void read_rows(const uint8_t* in, const Header& header, size_t stride, const Palette& palette,
               std::vector<uint8_t>& rgb) {
  for (size_t y = 0; y < header.height; ++y) {
    const uint8_t* row = in + y * stride;
    uint8_t* out = &rgb[(header.top_down ? y : header.height - 1 - y) * header.width * 3];
    for (size_t x = 0; x < header.width; ++x, out += 3) {
      if (header.bits <= 8) {
        const size_t per_byte = 8 / header.bits;
        const uint32_t shift = 8 - header.bits * (1 + static_cast<uint32_t>(x % per_byte));
        const size_t index = row[x / per_byte] >> shift & ((1u << header.bits) - 1);
        std::memcpy(out, &palette[index * 3], 3);
        continue;
      }
      const uint8_t* p = row + x * (header.bits / 8);
      uint32_t pixel = le16(p);
      if (header.bits >= 24) pixel |= uint32_t{p[2]} << 16;
      if (header.bits == 32) pixel |= uint32_t{p[3]} << 24;
      out[0] = component(pixel, header.masks.red);
      out[1] = component(pixel, header.masks.green);
      out[2] = component(pixel, header.masks.blue);
    }
  }
}

/// Run-length coded palette indices, rows bottom to top; what is left out stays 0.
const char* read_runs(Data data, const Header& header, std::vector<uint8_t>& indices) {
  const bool rle4 = header.compression == kRle4;
  size_t x = 0, y = 0, at = header.pixels_at;
  auto put = [&](uint8_t index) {
    if (x < header.width && y < header.height) indices[y * header.width + x] = index;
    ++x;
  };
  auto nibble = [](uint8_t byte, size_t i) -> uint8_t {
    return i % 2 == 0 ? byte >> 4 : byte & 15;
  };
  while (y < header.height) {
    if (at + 2 > data.size()) return x >= header.width && y + 1 == header.height ? nullptr : kShort;
    const uint8_t count = data[at++], value = data[at++];
    if (count > 0) {
      for (size_t i = 0; i < count; ++i) put(rle4 ? nibble(value, i) : value);
    } else if (value == 0) {
      x = 0, ++y;
    } else if (value == 1) {
      return nullptr;
    } else if (value == 2) {
      if (at + 2 > data.size()) return kShort;
      x += data[at++], y += data[at++];
    } else {
      const size_t bytes = rle4 ? (value + size_t{1}) / 2 : value;
      if (at + bytes > data.size()) return kShort;
      for (size_t i = 0; i < value; ++i) {
        put(rle4 ? nibble(data[at + i / 2], i) : data[at + i]);
      }
      at += bytes + bytes % 2;  // runs end on even bytes
    }
  }
  return nullptr;
}

}  // namespace

RawResult decode_bmp(Data data) {
  Header header;
  uint32_t header_size = 0;
  if (const char* why = read_header(data, header, header_size)) return broken("BMP", why);
  constexpr std::array<uint32_t, 7> kHeaders = {12, 40, 52, 56, 64, 108, 124};
  constexpr std::array<uint32_t, 6> kDepths = {1, 4, 8, 16, 24, 32};
  if (std::find(kHeaders.begin(), kHeaders.end(), header_size) == kHeaders.end()) {
    return unsupported("an unknown header of " + std::to_string(header_size) + " bytes");
  }
  if (std::find(kDepths.begin(), kDepths.end(), header.bits) == kDepths.end()) {
    return unsupported(std::to_string(header.bits) +
                       " bits a pixel; 1, 4, 8, 16, 24 and 32 are read");
  }
  const bool runs = (header.compression == kRle8 && header.bits == 8) ||
                    (header.compression == kRle4 && header.bits == 4);
  if (!runs && header.compression != kRaw && header.compression != kBitFields) {
    return unsupported("compression " + std::to_string(header.compression) + ", which is not read");
  }
  if (header.compression == kBitFields &&
      (header.bits < 16 || !known_masks(header.bits, header.masks))) {
    return unsupported("an unusual layout of its pixels");
  }
  if (vlm::Status size = check_size("BMP", header.width, header.height); !size) return size.error();

  RawPicture picture;
  picture.width = static_cast<int>(header.width);
  picture.height = static_cast<int>(header.height);
  const Palette palette = header.bits <= 8 ? read_palette(data, header) : Palette{};
  size_t stride = (header.width * header.bits + 31) / 32 * 4;
  if (runs) {
    // A run makes at most 255 pixels of two bytes, save for what is left out.
    std::vector<uint8_t> indices(header.width * header.height);
    if (const char* why = read_runs(data, header, indices)) return broken("BMP", why);
    picture.rgb.resize(header.width * header.height * 3);
    header.bits = 8, stride = header.width;
    read_rows(indices.data(), header, stride, palette, picture.rgb);
    return picture;
  }
  if (header.pixels_at > data.size() || data.size() - header.pixels_at < stride * header.height) {
    return broken("BMP", kShort);
  }
  picture.rgb.resize(header.width * header.height * 3);
  read_rows(&data[header.pixels_at], header, stride, palette, picture.rgb);
  return picture;
}

}  // namespace describe
