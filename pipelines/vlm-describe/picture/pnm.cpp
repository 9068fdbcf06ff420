// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "picture/codec.h"

namespace describe {

namespace {

constexpr const char* kShort = "the file ends in the middle of the picture";

bool is_space(uint8_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/// Numbers of the header and of the plain formats, with `#` comments between them.
struct PnmReader {
  Data data;
  size_t at = 2;

  void skip_space() {
    while (at < data.size() && (is_space(data[at]) || data[at] == '#')) {
      if (data[at] == '#') {
        while (at < data.size() && data[at] != '\n' && data[at] != '\r') ++at;
      } else {
        ++at;
      }
    }
  }
  /// -1 where there is none, or one of more than ten digits.
  int64_t number() {
    skip_space();
    int64_t value = 0;
    size_t digits = 0;
    for (; at < data.size() && data[at] >= '0' && data[at] <= '9'; ++at, ++digits) {
      if (digits == 10) return -1;
      value = value * 10 + (data[at] - '0');
    }
    return digits > 0 ? value : -1;
  }
};

/// A sample as the reference scales it: in double, halves to even. Wide grey keeps 16 bits there
/// and is clipped when it becomes RGB.
uint8_t scale_sample(uint32_t value, uint32_t max, bool wide_grey) {
  const double out_max = wide_grey ? 65535 : 255;
  const double scaled = std::nearbyint(static_cast<double>(value) / max * out_max);
  return static_cast<uint8_t>(std::min(scaled, 255.0));
}

struct Header {
  char kind = 0;  // '1' to '6'
  uint64_t width = 0, height = 0;
  uint32_t max = 1;
  bool bits() const { return kind == '1' || kind == '4'; }
  bool plain() const { return kind <= '3'; }
  size_t channels() const { return kind == '3' || kind == '6' ? 3 : 1; }
};

const char* read_plain(PnmReader& file, const Header& header, std::vector<uint8_t>& samples) {
  const bool wide_grey = header.channels() == 1 && header.max > 255;
  for (uint8_t& sample : samples) {
    if (header.bits()) {
      file.skip_space();
      if (file.at >= file.data.size()) return kShort;
      const uint8_t c = file.data[file.at++];
      if (c != '0' && c != '1') return "it holds something else than 0 and 1";
      sample = c == '1' ? 0 : 255;
    } else {
      const int64_t value = file.number();
      if (value < 0)
        return file.at >= file.data.size() ? kShort : "it holds something that is no number";
      if (value > header.max) return "a value is larger than its header allows";
      sample = scale_sample(static_cast<uint32_t>(value), header.max, wide_grey);
    }
  }
  return nullptr;
}

const char* read_binary(PnmReader& file, const Header& header, std::vector<uint8_t>& samples) {
  const size_t sample_bytes = header.max > 255 ? 2 : 1;
  const size_t row_bytes =
      header.bits() ? (header.width + 7) / 8 : header.width * header.channels() * sample_bytes;
  if (file.data.size() - file.at < row_bytes * header.height) return kShort;
  const uint8_t* in = file.data.data() + file.at;
  if (header.bits()) {
    for (size_t i = 0; i < samples.size(); ++i) {
      const size_t x = i % header.width;
      const uint8_t byte = in[i / header.width * row_bytes + x / 8];
      samples[i] = (byte >> (7 - x % 8) & 1) != 0 ? 0 : 255;
    }
  } else if (header.max == 255) {
    std::memcpy(samples.data(), in, samples.size());
  } else {
    const bool wide_grey = header.channels() == 1 && header.max > 255;
    for (size_t i = 0; i < samples.size(); ++i) {
      const uint32_t value = sample_bytes == 1 ? in[i] : uint32_t{in[2 * i]} << 8 | in[2 * i + 1];
      samples[i] = scale_sample(value, header.max, wide_grey);
    }
  }
  return nullptr;
}

}  // namespace

RawResult decode_pnm(Data data) {
  PnmReader file{data};
  Header header;
  header.kind = static_cast<char>(data[1]);
  const int64_t width = file.number();
  const int64_t height = file.number();
  if (width < 0 || height < 0) return broken("PNM", "its size is not a pair of numbers");
  header.width = static_cast<uint64_t>(width);
  header.height = static_cast<uint64_t>(height);
  if (!header.bits()) {
    const int64_t max = file.number();
    if (max < 1 || max > 65535) return broken("PNM", "its largest value is not from 1 to 65535");
    header.max = static_cast<uint32_t>(max);
  }
  if (vlm::Status size = check_size("PNM", header.width, header.height); !size) return size.error();
  if (file.at >= data.size() || !is_space(data[file.at])) return broken("PNM", kShort);
  ++file.at;  // exactly one white space ends the header
  // Every sample takes at least one bit of the file.
  const uint64_t samples_size = header.width * header.height * header.channels();
  if (samples_size / 8 > data.size()) return broken("PNM", kShort);
  std::vector<uint8_t> samples(samples_size);
  if (const char* why =
          header.plain() ? read_plain(file, header, samples) : read_binary(file, header, samples)) {
    return broken("PNM", why);
  }
  RawPicture picture;
  picture.width = static_cast<int>(header.width);
  picture.height = static_cast<int>(header.height);
  if (header.channels() == 3) {
    picture.rgb = std::move(samples);
  } else {
    picture.rgb.resize(samples_size * 3);
    for (size_t i = 0; i < samples.size(); ++i) std::memset(&picture.rgb[i * 3], samples[i], 3);
  }
  return picture;
}

}  // namespace describe
