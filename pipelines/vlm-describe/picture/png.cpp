// SPDX-License-Identifier: LGPL-2.1-or-later
#include <png.h>

#include <csetjmp>
#include <cstring>
#include <string>
#include <string_view>

#include "picture/codec.h"

namespace describe {

namespace {

struct PngState {
  Data data;
  size_t position = 0;
  char message[128] = "";
};

void on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<PngState*>(png_get_error_ptr(png));
  std::strncpy(state->message, message, sizeof state->message - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep out, size_t size) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  if (size > state->data.size() - state->position) {
    png_error(png, "the file ends in the middle of the picture");
  }
  std::memcpy(out, state->data.data() + state->position, size);
  state->position += size;
}

/// "Raw profile type exif": three lines, then the data in hexadecimal digits.
std::vector<uint8_t> raw_profile(std::string_view text) {
  for (int i = 0; i < 3; ++i) {
    const size_t end = text.find('\n');
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
  }
  auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  std::vector<uint8_t> bytes;
  int high = -1;
  for (const char c : text) {
    const int value = digit(c);
    if (value < 0) continue;
    if (high < 0) {
      high = value;
    } else {
      bytes.push_back(static_cast<uint8_t>(high << 4 | value));
      high = -1;
    }
  }
  return bytes;
}

void find_orientation(png_structp png, png_infop info, Orientation& orientation) {
  png_textp texts = nullptr;
  const int count = png_get_text(png, info, &texts, nullptr);
  for (int i = 0; i < count; ++i) {
    const std::string_view key(texts[i].key);
    const size_t length = texts[i].compression > 0 ? texts[i].itxt_length : texts[i].text_length;
    const std::string_view text(texts[i].text ? texts[i].text : "", texts[i].text ? length : 0);
    if (key == "XML:com.adobe.xmp") {
      orientation.xmp(Data(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
    } else if (key == "Raw profile type exif") {
      orientation.exif(raw_profile(text));
    }
  }
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(png, info, &size, &exif) != 0) orientation.exif(Data(exif, size));
}

/// How one row of samples becomes RGB.
struct Layout {
  int channels = 3;
  bool wide_grey = false;  // 16-bit grey without alpha: clipped to 255, as the reference does
  const png_color* palette = nullptr;
  int palette_size = 0;
};

void row_to_rgb(const uint8_t* in, uint8_t* out, size_t width, const Layout& layout) {
  for (size_t x = 0; x < width; ++x, out += 3) {
    if (layout.palette != nullptr) {
      // An index beyond the palette is black.
      const png_color black = {0, 0, 0};
      const png_color& c = in[x] < layout.palette_size ? layout.palette[in[x]] : black;
      out[0] = c.red, out[1] = c.green, out[2] = c.blue;
    } else if (layout.wide_grey) {
      std::memset(out, in[2 * x] != 0 ? 255 : in[2 * x + 1], 3);
    } else if (layout.channels <= 2) {
      std::memset(out, in[x * layout.channels], 3);
    } else {
      std::memcpy(out, in + x * layout.channels, 3);
    }
  }
}

enum class Outcome { kDone, kBadSize, kFailed };

Layout set_up(png_structp png, png_infop info) {
  Layout layout;
  const int colour = png_get_color_type(png, info);
  const int depth = png_get_bit_depth(png, info);
  png_set_interlace_handling(png);
  if (colour == PNG_COLOR_TYPE_PALETTE) {
    png_colorp palette = nullptr;
    png_get_PLTE(png, info, &palette, &layout.palette_size);
    layout.palette = palette;
    png_set_packing(png);
  } else if (colour == PNG_COLOR_TYPE_GRAY && depth < 8) {
    png_set_expand_gray_1_2_4_to_8(png);
  } else if (colour == PNG_COLOR_TYPE_GRAY && depth == 16) {
    layout.wide_grey = true;
  } else if (depth == 16) {
    png_set_strip_16(png);
  }
  png_read_update_info(png, info);
  layout.channels = png_get_channels(png, info);
  return layout;
}

/// Everything with a destructor lives in the caller: longjmp ends this function.
Outcome decode(png_structp png, png_infop info, RawPicture& picture, std::vector<uint8_t>& samples,
               std::vector<png_bytep>& rows, Orientation& orientation) {
  volatile bool have_pixels = false;
  if (setjmp(png_jmpbuf(png)) != 0) {
    if (!have_pixels) return Outcome::kFailed;
    find_orientation(png, info, orientation);  // what follows the pixels may be missing
    return Outcome::kDone;
  }
  png_read_info(png, info);
  const size_t width = png_get_image_width(png, info);
  const size_t height = png_get_image_height(png, info);
  picture.width = static_cast<int>(width);
  picture.height = static_cast<int>(height);
  if (!check_size("PNG", width, height)) return Outcome::kBadSize;
  const Layout layout = set_up(png, info);
  const size_t stride = png_get_rowbytes(png, info);
  samples.resize(stride * height);
  rows.resize(height);
  for (size_t y = 0; y < height; ++y) rows[y] = &samples[y * stride];
  png_read_image(png, rows.data());
  picture.rgb.resize(width * height * 3);
  for (size_t y = 0; y < height; ++y) {
    row_to_rgb(rows[y], &picture.rgb[y * width * 3], width, layout);
  }
  have_pixels = true;
  png_read_end(png, info);
  find_orientation(png, info, orientation);
  return Outcome::kDone;
}

}  // namespace

RawResult decode_png(Data data) {
  RawPicture picture;
  std::vector<uint8_t> samples;
  std::vector<png_bytep> rows;
  Orientation orientation;
  PngState state{data};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &state, on_error, on_warning);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  Outcome outcome = Outcome::kFailed;
  if (info != nullptr) {
    png_set_read_fn(png, &state, on_read);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
    png_set_check_for_invalid_index(png, 0);
    try {
      outcome = decode(png, info, picture, samples, rows, orientation);
    } catch (...) {
      png_destroy_read_struct(&png, &info, nullptr);
      throw;
    }
  }
  png_destroy_read_struct(&png, &info, nullptr);
  if (outcome == Outcome::kFailed) return broken("PNG", state.message);
  if (outcome == Outcome::kBadSize) {
    return check_size("PNG", static_cast<uint64_t>(picture.width),
                      static_cast<uint64_t>(picture.height))
        .error();
  }
  picture.orientation = orientation.value();
  return picture;
}

}  // namespace describe
