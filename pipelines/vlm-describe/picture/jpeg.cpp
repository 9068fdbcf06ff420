// SPDX-License-Identifier: LGPL-2.1-or-later
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
// libjpeg's header needs the two above it.
#include <jerror.h>
#include <jpeglib.h>

#include "picture/codec.h"

namespace describe {

namespace {

struct JpegErrors {
  jpeg_error_mgr base;  // first: libjpeg hands it back
  jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
  bool ended_early;
};

void on_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  errors->base.format_message(info, errors->message);
  longjmp(errors->escape, 1);
}

/// Damaged data inside a picture is decoded as far as it goes, as the reference does; only data
/// that ends too soon counts.
void on_message(j_common_ptr info, int level) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  if (level < 0 && errors->base.msg_code == JWRN_JPEG_EOF) errors->ended_early = true;
}

uint8_t scaled(uint32_t a, uint32_t b) {
  const uint32_t product = a * b + 128;
  return static_cast<uint8_t>(((product >> 8) + product) >> 8);
}

/// One row of inverted (Adobe's) CMYK to RGB.
void cmyk_to_rgb(const uint8_t* cmyk, uint8_t* rgb, uint32_t width) {
  for (uint32_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const uint32_t light = cmyk[3];
    for (int c = 0; c < 3; ++c) {
      rgb[c] = static_cast<uint8_t>(light - scaled(255u - cmyk[c], light));
    }
  }
}

void grey_to_rgb(const uint8_t* grey, uint8_t* rgb, uint32_t width) {
  for (uint32_t x = 0; x < width; ++x, rgb += 3) std::memset(rgb, grey[x], 3);
}

void find_orientation(const jpeg_decompress_struct& info, Orientation& orientation) {
  constexpr std::string_view kExif("Exif\0\0", 6);
  constexpr std::string_view kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  std::vector<uint8_t> exif;  // EXIF data may be spread over several markers
  for (jpeg_saved_marker_ptr m = info.marker_list; m != nullptr; m = m->next) {
    const Data data(m->data, m->data_length);
    auto has = [&](std::string_view prefix) {
      return data.size() >= prefix.size() &&
             std::memcmp(data.data(), prefix.data(), prefix.size()) == 0;
    };
    if (has(kExif)) {
      exif.insert(exif.end(), data.begin() + 6, data.end());
    } else if (has(kXmp)) {
      orientation.xmp(data.subspan(kXmp.size()));
    }
  }
  if (!exif.empty()) orientation.exif(exif);
}

enum class Outcome { kDone, kBadSize, kBadComponents, kTooShort, kFailed };

/// Everything with a destructor lives in the caller: longjmp ends this function.
Outcome decode(Data data, JpegErrors& errors, jpeg_decompress_struct& info, RawPicture& picture,
               Orientation& orientation, std::vector<uint8_t>& row) {
  if (setjmp(errors.escape) != 0) return Outcome::kFailed;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, data.data(), data.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&info, TRUE);
  picture.width = static_cast<int>(info.image_width);
  picture.height = static_cast<int>(info.image_height);
  if (!check_size("JPEG", info.image_width, info.image_height)) return Outcome::kBadSize;
  switch (info.num_components) {
    case 1:
      info.out_color_space = JCS_GRAYSCALE;
      break;
    case 3:
      info.out_color_space = JCS_RGB;
      break;
    case 4:
      info.out_color_space = JCS_CMYK;
      break;
    default:
      return Outcome::kBadComponents;
  }
  find_orientation(info, orientation);
  jpeg_start_decompress(&info);
  const size_t stride = size_t{info.output_width} * 3;
  picture.rgb.resize(stride * info.output_height);
  row.resize(size_t{info.output_width} * static_cast<size_t>(info.output_components));
  while (info.output_scanline < info.output_height) {
    uint8_t* out = &picture.rgb[info.output_scanline * stride];
    JSAMPROW target = info.out_color_space == JCS_RGB ? out : row.data();
    jpeg_read_scanlines(&info, &target, 1);
    if (errors.ended_early) return Outcome::kTooShort;
    if (info.out_color_space == JCS_GRAYSCALE) grey_to_rgb(row.data(), out, info.output_width);
    if (info.out_color_space == JCS_CMYK) cmyk_to_rgb(row.data(), out, info.output_width);
  }
  return Outcome::kDone;
}

}  // namespace

RawResult decode_jpeg(Data data) {
  RawPicture picture;
  Orientation orientation;
  std::vector<uint8_t> row;
  JpegErrors errors = {};
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  Outcome outcome = Outcome::kFailed;
  try {
    outcome = decode(data, errors, info, picture, orientation, row);
  } catch (...) {
    jpeg_destroy_decompress(&info);
    throw;
  }
  const int components = info.num_components;
  jpeg_destroy_decompress(&info);
  switch (outcome) {
    case Outcome::kDone:
      break;
    case Outcome::kBadSize:
      return check_size("JPEG", static_cast<uint64_t>(picture.width),
                        static_cast<uint64_t>(picture.height))
          .error();
    case Outcome::kBadComponents:
      return broken("JPEG", "it has " + std::to_string(components) + " colour components");
    case Outcome::kTooShort:
      return broken("JPEG", "the file ends in the middle of the picture");
    case Outcome::kFailed:
      return broken("JPEG", errors.ended_early ? "the file ends in the middle of the picture"
                                               : errors.message);
  }
  picture.orientation = orientation.value();
  return picture;
}

}  // namespace describe
