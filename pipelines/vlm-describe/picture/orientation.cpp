// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <cstring>
#include <string_view>

#include "picture/codec.h"

namespace describe {

namespace {

constexpr uint32_t kOrientationTag = 0x0112;

/// Integers of a TIFF structure in its own byte order.
struct TiffReader {
  Data data;
  bool big_endian = false;

  bool has(uint64_t at, uint64_t size) const { return at + size <= data.size(); }
  uint32_t u16(uint64_t at) const {
    const uint8_t* p = data.data() + at;
    return big_endian ? uint32_t{p[0]} << 8 | p[1] : le16(p);
  }
  uint32_t u32(uint64_t at) const {
    return big_endian ? u16(at) << 16 | u16(at + 2) : le32(data.data() + at);
  }
};

/// The value of an entry of one integer, else 0.
int entry_value(const TiffReader& tiff, uint64_t entry) {
  if (tiff.u32(entry + 4) != 1) return 0;
  switch (tiff.u16(entry + 2)) {
    case 1:  // byte
      return tiff.data[entry + 8];
    case 3:  // short
      return static_cast<int>(tiff.u16(entry + 8));
    case 4:  // long
      return static_cast<int>(std::min<uint32_t>(tiff.u32(entry + 8), 9));
    default:
      return 0;
  }
}

}  // namespace

void Orientation::exif(Data data) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  while (data.size() >= kPrefix.size() &&
         std::memcmp(data.data(), kPrefix.data(), kPrefix.size()) == 0) {
    data = data.subspan(kPrefix.size());
  }
  if (data.size() < 8) return;
  TiffReader tiff{data};
  if (data[0] == 'M' && data[1] == 'M') {
    tiff.big_endian = true;
  } else if (data[0] != 'I' || data[1] != 'I') {
    return;
  }
  if (tiff.u16(2) != 42) return;
  const uint64_t directory = tiff.u32(4);
  if (!tiff.has(directory, 2)) return;
  const uint32_t entries = tiff.u16(directory);
  for (uint32_t i = 0; i < entries; ++i) {
    const uint64_t entry = directory + 2 + uint64_t{12} * i;
    if (!tiff.has(entry, 12)) return;
    if (tiff.u16(entry) == kOrientationTag) exif_ = entry_value(tiff, entry);
  }
}

void Orientation::xmp(Data data) {
  const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
  constexpr std::string_view kKey = "tiff:Orientation";
  for (size_t at = text.find(kKey); at != text.npos; at = text.find(kKey, at + 1)) {
    std::string_view rest = text.substr(at + kKey.size());
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with(">")) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (rest.empty() || rest[0] < '0' || rest[0] > '9') continue;
    xmp_ = rest[0] - '0';
    return;
  }
}

}  // namespace describe
