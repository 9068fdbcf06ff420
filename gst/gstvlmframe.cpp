// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmframe.h"

#include <algorithm>
#include <string>
#include <utility>

namespace gstvlm {
namespace {

// A field that comes alone has half of the frame's lines, each twice as high.
GstVideoInfo readable_info(const GstVideoInfo& info) {
  if (GST_VIDEO_INFO_INTERLACE_MODE(&info) != GST_VIDEO_INTERLACE_MODE_ALTERNATE) {
    return info;
  }
  GstVideoInfo field = info;
  gst_video_info_set_interlaced_format(
      &field, GST_VIDEO_INFO_FORMAT(&info), GST_VIDEO_INTERLACE_MODE_PROGRESSIVE,
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

GstVideoInfo rgb_info(const GstVideoInfo& in, int width, int height) {
  GstVideoInfo out;
  gst_video_info_set_format(&out, GST_VIDEO_FORMAT_RGB, static_cast<guint>(width),
                            static_cast<guint>(height));
  out.stride[0] = width * 3;
  out.size = static_cast<gsize>(width) * 3 * static_cast<gsize>(height);
  // The converter refuses to change these.
  out.interlace_mode = in.interlace_mode;
  out.fps_n = in.fps_n;
  out.fps_d = in.fps_d;
  return out;
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
  bool ok = prepare(frame.info, region);
  if (ok) {
    picture.width = GST_VIDEO_INFO_WIDTH(&out_);
    picture.height = GST_VIDEO_INFO_HEIGHT(&out_);
    picture.rgb.resize(out_.size);
    GstBuffer* target = gst_buffer_new_wrapped_full(static_cast<GstMemoryFlags>(0),
                                                    picture.rgb.data(), out_.size, 0, out_.size,
                                                    nullptr, nullptr);
    GstVideoFrame rgb;
    ok = gst_video_frame_map(&rgb, &out_, target, GST_MAP_WRITE);
    if (ok) {
      gst_video_converter_frame(converter_.get(), &frame, &rgb);
      gst_video_frame_unmap(&rgb);
    }
    gst_buffer_unref(target);
  }
  gst_video_frame_unmap(&frame);
  if (!ok) {
    return bad_buffer(look_.info, buffer);
  }
  return turned(std::move(picture), look_.orientation);
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
  out_ = rgb_info(mapped, displayed_width(region.width, look_.info), region.height);
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
  const bool swap =
      method == GST_VIDEO_ORIENTATION_90R || method == GST_VIDEO_ORIENTATION_90L ||
      method == GST_VIDEO_ORIENTATION_UL_LR || method == GST_VIDEO_ORIENTATION_UR_LL;
  if (!swap && method != GST_VIDEO_ORIENTATION_180 && method != GST_VIDEO_ORIENTATION_HORIZ &&
      method != GST_VIDEO_ORIENTATION_VERT) {
    return frame;
  }
  vlm::Frame out{swap ? height : width, swap ? width : height, {}};
  out.rgb.resize(frame.rgb.size());
  // Where the pixel at (x, y) of the result comes from, along and across the source's lines.
  const bool from_right = method == GST_VIDEO_ORIENTATION_180 ||
                          method == GST_VIDEO_ORIENTATION_HORIZ ||
                          method == GST_VIDEO_ORIENTATION_90L ||
                          method == GST_VIDEO_ORIENTATION_UR_LL;
  const bool from_bottom = method == GST_VIDEO_ORIENTATION_180 ||
                           method == GST_VIDEO_ORIENTATION_VERT ||
                           method == GST_VIDEO_ORIENTATION_90R ||
                           method == GST_VIDEO_ORIENTATION_UR_LL;
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const int along = swap ? y : x;
      const int across = swap ? x : y;
      const int from_x = from_right ? width - 1 - along : along;
      const int from_y = from_bottom ? height - 1 - across : across;
      const size_t from = (static_cast<size_t>(from_y) * static_cast<size_t>(width) +
                           static_cast<size_t>(from_x)) * 3;
      const size_t to = (static_cast<size_t>(y) * static_cast<size_t>(out.width) +
                         static_cast<size_t>(x)) * 3;
      std::copy_n(frame.rgb.begin() + static_cast<std::ptrdiff_t>(from), 3,
                  out.rgb.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }
  return out;
}

}  // namespace gstvlm
