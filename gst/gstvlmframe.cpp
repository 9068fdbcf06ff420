// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmframe.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace gstvlm {
namespace {

// A field that comes alone has half of the frame's lines, each twice as high.
GstVideoInfo readable_info(const GstVideoInfo& info) {
  if (GST_VIDEO_INFO_INTERLACE_MODE(&info) != GST_VIDEO_INTERLACE_MODE_ALTERNATE) {
    return info;
  }
  GstVideoInfo field = info;
  gst_video_info_set_interlaced_format(&field, GST_VIDEO_INFO_FORMAT(&info),
                                       GST_VIDEO_INTERLACE_MODE_PROGRESSIVE,
                                       static_cast<guint>(GST_VIDEO_INFO_WIDTH(&info)),
                                       static_cast<guint>(GST_VIDEO_INFO_FIELD_HEIGHT(&info)));
  field.colorimetry = info.colorimetry;
  field.chroma_site = info.chroma_site;
  field.par_n = info.par_n;
  field.par_d = info.par_d * 2;
  field.fps_n = info.fps_n;
  field.fps_d = info.fps_d;
  return field;
}

// Square pixels without losing lines: width is what changes.
int displayed_width(int width, const GstVideoInfo& info) {
  const gint n = GST_VIDEO_INFO_PAR_N(&info);
  const gint d = GST_VIDEO_INFO_PAR_D(&info);
  if (n <= 0 || d <= 0 || n == d) {
    return width;
  }
  const guint64 scaled = gst_util_uint64_scale_int_round(static_cast<guint64>(width), n, d);
  return static_cast<int>(std::clamp<guint64>(scaled, 1, G_MAXINT16));
}

// What the converter is asked for. It unpacks, scales and interpolates chroma; its colour matrices
// are too coarse (off by up to 5 of 255), so they are applied here.
GstVideoFormat target_format(const GstVideoInfo& in) {
  const bool deep = GST_VIDEO_INFO_COMP_DEPTH(&in, 0) > 8;
  if (GST_VIDEO_INFO_IS_RGB(&in)) {
    return deep ? GST_VIDEO_FORMAT_ARGB64 : GST_VIDEO_FORMAT_RGB;
  }
  return deep ? GST_VIDEO_FORMAT_AYUV64 : GST_VIDEO_FORMAT_AYUV;
}

GstVideoInfo target_info(const GstVideoInfo& in, int width, int height) {
  GstVideoInfo out;
  gst_video_info_set_format(&out, target_format(in), static_cast<guint>(width),
                            static_cast<guint>(height));
  if (GST_VIDEO_INFO_FORMAT(&out) == GST_VIDEO_FORMAT_RGB) {
    out.stride[0] = width * 3;
    out.size = static_cast<gsize>(width) * 3 * static_cast<gsize>(height);
  }
  if (!GST_VIDEO_INFO_IS_RGB(&in)) {
    out.colorimetry = in.colorimetry;
  }
  // The converter refuses to change these.
  out.interlace_mode = in.interlace_mode;
  out.fps_n = in.fps_n;
  out.fps_d = in.fps_d;
  return out;
}

uint8_t to_byte(float value) {
  return static_cast<uint8_t>(std::clamp(value, 0.0F, 255.0F) + 0.5F);
}

// Rows of alpha, luma and two colour differences to red, green and blue of 0 to 255.
template <typename Sample>
void yuv_to_rgb(const std::vector<uint8_t>& packed, const GstVideoInfo& info,
                std::vector<uint8_t>& rgb) {
  gint offset[GST_VIDEO_MAX_COMPONENTS];
  gint scale[GST_VIDEO_MAX_COMPONENTS];
  gst_video_color_range_offsets(info.colorimetry.range, info.finfo, offset, scale);
  gdouble kr = 0;
  gdouble kb = 0;
  if (!gst_video_color_matrix_get_Kr_Kb(info.colorimetry.matrix, &kr, &kb)) {
    gst_video_color_matrix_get_Kr_Kb(GST_VIDEO_COLOR_MATRIX_BT709, &kr, &kb);
  }
  const auto luma = static_cast<float>(255.0 / scale[0]);
  const auto red = static_cast<float>(2 * (1 - kr) * 255.0 / scale[2]);
  const auto blue = static_cast<float>(2 * (1 - kb) * 255.0 / scale[1]);
  const auto green_b = static_cast<float>(2 * (1 - kb) * kb / (1 - kr - kb) * 255.0 / scale[1]);
  const auto green_r = static_cast<float>(2 * (1 - kr) * kr / (1 - kr - kb) * 255.0 / scale[2]);
  const auto* from = reinterpret_cast<const Sample*>(packed.data());
  for (size_t to = 0; to < rgb.size(); to += 3, from += 4) {
    const float y = static_cast<float>(from[1] - offset[0]) * luma;
    const auto cb = static_cast<float>(from[2] - offset[1]);
    const auto cr = static_cast<float>(from[3] - offset[2]);
    rgb[to] = to_byte(y + red * cr);
    rgb[to + 1] = to_byte(y - green_b * cb - green_r * cr);
    rgb[to + 2] = to_byte(y + blue * cb);
  }
}

// Rows of 16-bit alpha, red, green and blue to 8 bits, rounded to the nearest.
void deep_to_rgb(const std::vector<uint8_t>& packed, std::vector<uint8_t>& rgb) {
  const auto* from = reinterpret_cast<const uint16_t*>(packed.data());
  for (size_t to = 0; to < rgb.size(); to += 3, from += 4) {
    for (size_t c = 0; c < 3; ++c) {
      rgb[to + c] = static_cast<uint8_t>((from[c + 1] * 255U + 32895U) >> 16);
    }
  }
}

vlm::Error bad_buffer(const GstVideoInfo& info, GstBuffer* buffer) {
  const std::string format = gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info));
  const std::string size = std::to_string(GST_VIDEO_INFO_WIDTH(&info)) + "×" +
                           std::to_string(GST_VIDEO_INFO_HEIGHT(&info));
  return {vlm::ErrorKind::kInvalidArgument,
          "A video buffer of " + std::to_string(gst_buffer_get_size(buffer)) +
              " bytes does not hold the " + std::to_string(GST_VIDEO_INFO_SIZE(&info)) +
              " bytes of a " + size + " " + format +
              " picture, or they cannot be read; look for the element upstream that cuts it short.",
          {}};
}

}  // namespace

FrameConverter::FrameConverter(const Look& look) : look_(look) {
  look_.info = readable_info(look.info);
  gst_video_info_init(&in_);
  gst_video_info_init(&out_);
}

FrameConverter::~FrameConverter() = default;

vlm::Result<vlm::Frame> FrameConverter::convert(GstBuffer* buffer) {
  GstVideoFrame frame;
  if (gst_buffer_get_size(buffer) == 0 ||
      !gst_video_frame_map(&frame, &look_.info, buffer, GST_MAP_READ)) {
    return bad_buffer(look_.info, buffer);
  }
  const Region region = visible(frame, buffer);
  vlm::Frame picture;
  const bool ok = prepare(frame.info, region) && run(frame, picture);
  gst_video_frame_unmap(&frame);
  if (!ok) {
    return bad_buffer(look_.info, buffer);
  }
  return turned(std::move(picture), look_.orientation);
}

bool FrameConverter::run(const GstVideoFrame& frame, vlm::Frame& picture) {
  std::vector<uint8_t> packed(out_.size);
  GstBuffer* target = gst_buffer_new_wrapped_full(static_cast<GstMemoryFlags>(0), packed.data(),
                                                  out_.size, 0, out_.size, nullptr, nullptr);
  GstVideoFrame mapped;
  const bool ok = gst_video_frame_map(&mapped, &out_, target, GST_MAP_WRITE) != FALSE;
  if (ok) {
    gst_video_converter_frame(converter_.get(), &frame, &mapped);
    gst_video_frame_unmap(&mapped);
  }
  gst_buffer_unref(target);
  picture.width = GST_VIDEO_INFO_WIDTH(&out_);
  picture.height = GST_VIDEO_INFO_HEIGHT(&out_);
  if (GST_VIDEO_INFO_FORMAT(&out_) == GST_VIDEO_FORMAT_RGB) {
    picture.rgb = std::move(packed);
    return ok;
  }
  picture.rgb.resize(static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height) * 3);
  switch (GST_VIDEO_INFO_FORMAT(&out_)) {
    case GST_VIDEO_FORMAT_AYUV:
      yuv_to_rgb<uint8_t>(packed, out_, picture.rgb);
      break;
    case GST_VIDEO_FORMAT_AYUV64:
      yuv_to_rgb<uint16_t>(packed, out_, picture.rgb);
      break;
    default:
      deep_to_rgb(packed, picture.rgb);
  }
  return ok;
}

// Crop metadata, as far as it lies inside the picture.
FrameConverter::Region FrameConverter::visible(const GstVideoFrame& frame,
                                               GstBuffer* buffer) const {
  const int width = GST_VIDEO_FRAME_WIDTH(&frame);
  const int height = GST_VIDEO_FRAME_HEIGHT(&frame);
  const Region whole{0, 0, width, height};
  const GstVideoCropMeta* crop = gst_buffer_get_video_crop_meta(buffer);
  if (crop == nullptr || crop->x >= static_cast<guint>(width) ||
      crop->y >= static_cast<guint>(height) || crop->width == 0 || crop->height == 0) {
    return whole;
  }
  Region region;
  region.x = static_cast<int>(crop->x);
  region.y = static_cast<int>(crop->y);
  region.width = static_cast<int>(std::min(crop->width, static_cast<guint>(width) - crop->x));
  region.height = static_cast<int>(std::min(crop->height, static_cast<guint>(height) - crop->y));
  return region;
}

bool FrameConverter::prepare(const GstVideoInfo& mapped, const Region& region) {
  const bool same_size = GST_VIDEO_INFO_WIDTH(&mapped) == GST_VIDEO_INFO_WIDTH(&in_) &&
                         GST_VIDEO_INFO_HEIGHT(&mapped) == GST_VIDEO_INFO_HEIGHT(&in_);
  if (converter_ != nullptr && same_size && region == region_) {
    return true;
  }
  in_ = mapped;
  region_ = region;
  out_ = target_info(mapped, displayed_width(region.width, look_.info), region.height);
  GstStructure* config = gst_structure_new(
      "config", GST_VIDEO_CONVERTER_OPT_SRC_X, G_TYPE_INT, region.x, GST_VIDEO_CONVERTER_OPT_SRC_Y,
      G_TYPE_INT, region.y, GST_VIDEO_CONVERTER_OPT_SRC_WIDTH, G_TYPE_INT, region.width,
      GST_VIDEO_CONVERTER_OPT_SRC_HEIGHT, G_TYPE_INT, region.height,
      GST_VIDEO_CONVERTER_OPT_DITHER_METHOD, GST_TYPE_VIDEO_DITHER_METHOD, GST_VIDEO_DITHER_NONE,
      nullptr);
  converter_.reset(gst_video_converter_new(&in_, &out_, config));
  return converter_ != nullptr;
}

vlm::Frame turned(vlm::Frame frame, GstVideoOrientationMethod method) {
  const int width = frame.width;
  const int height = frame.height;
  const bool swap = method == GST_VIDEO_ORIENTATION_90R || method == GST_VIDEO_ORIENTATION_90L ||
                    method == GST_VIDEO_ORIENTATION_UL_LR || method == GST_VIDEO_ORIENTATION_UR_LL;
  if (!swap && method != GST_VIDEO_ORIENTATION_180 && method != GST_VIDEO_ORIENTATION_HORIZ &&
      method != GST_VIDEO_ORIENTATION_VERT) {
    return frame;
  }
  vlm::Frame out{swap ? height : width, swap ? width : height, {}};
  out.rgb.resize(frame.rgb.size());
  // Where the pixel at (x, y) of the result comes from, along and across the source's lines.
  const bool from_right =
      method == GST_VIDEO_ORIENTATION_180 || method == GST_VIDEO_ORIENTATION_HORIZ ||
      method == GST_VIDEO_ORIENTATION_90L || method == GST_VIDEO_ORIENTATION_UR_LL;
  const bool from_bottom =
      method == GST_VIDEO_ORIENTATION_180 || method == GST_VIDEO_ORIENTATION_VERT ||
      method == GST_VIDEO_ORIENTATION_90R || method == GST_VIDEO_ORIENTATION_UR_LL;
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const int along = swap ? y : x;
      const int across = swap ? x : y;
      const int from_x = from_right ? width - 1 - along : along;
      const int from_y = from_bottom ? height - 1 - across : across;
      const size_t from =
          (static_cast<size_t>(from_y) * static_cast<size_t>(width) + static_cast<size_t>(from_x)) *
          3;
      const size_t to =
          (static_cast<size_t>(y) * static_cast<size_t>(out.width) + static_cast<size_t>(x)) * 3;
      std::copy_n(frame.rgb.begin() + static_cast<std::ptrdiff_t>(from), 3,
                  out.rgb.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }
  return out;
}

}  // namespace gstvlm
