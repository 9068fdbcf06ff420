// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmframe.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gstvlmcolour.h"
#include "gstvlmcuda.h"
#include "gstvlmlayout.h"
#include "gstvlmturn.h"
#include "kernels/rounded.h"

namespace gstvlm {
namespace {

bool one_field(const GstVideoInfo& info) {
  return GST_VIDEO_INFO_INTERLACE_MODE(&info) == GST_VIDEO_INTERLACE_MODE_ALTERNATE;
}

// Whether lines of two moments lie in the buffer by turns.
bool two_fields(const GstVideoInfo& info, GstBuffer* buffer) {
  switch (GST_VIDEO_INFO_INTERLACE_MODE(&info)) {
    case GST_VIDEO_INTERLACE_MODE_INTERLEAVED:
      return true;
    case GST_VIDEO_INTERLACE_MODE_MIXED:
      return GST_BUFFER_FLAG_IS_SET(buffer, GST_VIDEO_BUFFER_FLAG_INTERLACED);
    default:
      return false;
  }
}

// Lines of a component in one buffer. Of two fields each has its own lines of colour differences.
gsize lines_of(const GstVideoInfo& info, const GstVideoMeta& meta, guint component, bool fields) {
  const auto height = static_cast<gint>(one_field(info) ? (meta.height + 1) / 2 : meta.height);
  const GstVideoFormatInfo* format = gst_video_format_get_info(meta.format);
  const auto lines =
      static_cast<gsize>(GST_VIDEO_FORMAT_INFO_SCALE_HEIGHT(format, component, height));
  return fields && GST_VIDEO_FORMAT_INFO_H_SUB(format, component) > 0 ? GST_ROUND_UP_2(lines)
                                                                      : lines;
}

// The end of a plane's last line, as far as the format's description says where that is.
gsize plane_end(const GstVideoInfo& info, const GstVideoMeta& meta, guint plane, bool fields) {
  const GstVideoFormatInfo* format = gst_video_format_get_info(meta.format);
  guint component = 0;
  while (component < format->n_components && format->plane[component] != plane) {
    ++component;
  }
  if (component == format->n_components || meta.stride[plane] < 0) {
    return meta.offset[plane];
  }
  const gsize lines = lines_of(info, meta, component, fields);
  const auto pixels = static_cast<gsize>(
      GST_VIDEO_FORMAT_INFO_SCALE_WIDTH(format, component, static_cast<gint>(meta.width)));
  const gsize before = static_cast<gsize>(meta.stride[plane]) * (lines == 0 ? 0 : lines - 1);
  return meta.offset[plane] + before +
         pixels * static_cast<gsize>(GST_VIDEO_FORMAT_INFO_PSTRIDE(format, component));
}

// Whether the second field's last line of colour differences is there. Layouts that know nothing of
// fields have as many lines as a frame needs, which is one less where that is an odd number.
bool bottom_is_whole(const GstVideoInfo& info, GstBuffer* buffer) {
  const GstVideoMeta* meta = gst_buffer_get_video_meta(buffer);
  if (meta == nullptr) {
    return true;
  }
  for (guint plane = 0; plane < meta->n_planes; ++plane) {
    // Up to the next plane, or to the end; planes may share rows.
    const gsize frame_end = plane_end(info, *meta, plane, false);
    gsize limit = gst_buffer_get_size(buffer);
    for (guint other = 0; other < meta->n_planes; ++other) {
      limit = meta->offset[other] >= frame_end ? std::min(limit, meta->offset[other]) : limit;
    }
    const gsize end = plane_end(info, *meta, plane, true);
    if (end != frame_end && end > limit) {
      return false;
    }
  }
  return true;
}

// Of a frame that is said to have one field alone, without the other to take instead.
bool bottom_alone(GstBuffer* buffer) {
  return GST_BUFFER_FLAG_IS_SET(buffer, GST_VIDEO_BUFFER_FLAG_ONEFIELD) &&
         !GST_BUFFER_FLAG_IS_SET(buffer, GST_VIDEO_BUFFER_FLAG_TFF);
}

// Leaves of two fields the lines of the one that was taken first, or is alone valid or whole.
void skip_other_field(GstVideoFrame& frame, GstBuffer* buffer) {
  const int lines = GST_VIDEO_FRAME_HEIGHT(&frame);
  const bool bottom = !GST_VIDEO_FRAME_IS_TFF(&frame) && lines > 1 &&
                      (bottom_alone(buffer) || bottom_is_whole(frame.info, buffer));
  const GstVideoFormatInfo* format = frame.info.finfo;
  const guint planes = GST_VIDEO_FORMAT_INFO_HAS_PALETTE(format)
                           ? 1
                           : static_cast<guint>(GST_VIDEO_FORMAT_INFO_N_PLANES(format));
  for (guint plane = 0; plane < planes; ++plane) {
    gint& stride = frame.info.stride[plane];
    frame.data[plane] = static_cast<guint8*>(frame.data[plane]) + (bottom ? stride : 0);
    stride *= 2;
  }
  frame.info.height = bottom ? lines / 2 : (lines + 1) / 2;
}

// The frame as a picture of one moment: of an interlaced one a field, which has half of the lines.
// A view of what is mapped. Lines of tiles cannot be skipped: such fields stay woven.
GstVideoFrame of_one_moment(const GstVideoFrame& frame, GstBuffer* buffer) {
  GstVideoFrame picture = frame;
  if (one_field(frame.info)) {
    picture.info.height = GST_VIDEO_INFO_FIELD_HEIGHT(&frame.info);
  } else if (two_fields(frame.info, buffer) && !GST_VIDEO_FORMAT_INFO_IS_TILED(frame.info.finfo)) {
    skip_other_field(picture, buffer);
  } else {
    return picture;
  }
  picture.info.interlace_mode = GST_VIDEO_INTERLACE_MODE_PROGRESSIVE;
  picture.flags = GST_VIDEO_FRAME_FLAG_NONE;
  return picture;
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
  // RGB is what the model gets, without bytes between rows. Else two pixels at a time are written,
  // which GStreamer 1.22 (UYVY) must not be asked for where every other row is not aligned to them.
  out.stride[0] = GST_VIDEO_INFO_FORMAT(&out) == GST_VIDEO_FORMAT_RGB
                      ? width * 3
                      : GST_ROUND_UP_16(out.stride[0]);
  out.size = static_cast<gsize>(out.stride[0]) * static_cast<gsize>(height);
  if (!GST_VIDEO_INFO_IS_RGB(&in)) {
    out.colorimetry = in.colorimetry;
  }
  // The converter refuses to change these.
  out.interlace_mode = in.interlace_mode;
  out.fps_n = in.fps_n;
  out.fps_d = in.fps_d;
  return out;
}

// A row of 16-bit alpha, red, green and blue to 8 bits, rounded to the nearest.
void deep_to_rgb(const uint16_t* from, uint8_t* to, size_t count) {
  for (size_t i = 0; i < count; ++i, from += 4, to += 3) {
    for (size_t c = 0; c < 3; ++c) {
      to[c] = static_cast<uint8_t>((from[c + 1] * 255U + 32895U) >> 16);
    }
  }
}

// Red, green and blue that leave room at both ends, to 0 to 255. `from` may be `to`.
template <typename Sample>
void stretch(const Sample* from, size_t step, const GstVideoInfo& info, uint8_t* to, size_t count) {
  gint offset[GST_VIDEO_MAX_COMPONENTS];
  gint scale[GST_VIDEO_MAX_COMPONENTS];
  gst_video_color_range_offsets(GST_VIDEO_COLOR_RANGE_16_235, info.finfo, offset, scale);
  const auto gain = static_cast<float>(255.0 / scale[0]);
  for (size_t i = 0; i < count; ++i, from += step, to += 3) {
    for (size_t c = 0; c < 3; ++c) {
      to[c] = vlm::nearest_byte(static_cast<float>(from[c] - offset[0]) * gain);
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

gsize bytes_needed(const GstVideoInfo& info, GstBuffer* buffer) {
  const GstVideoMeta* meta = gst_buffer_get_video_meta(buffer);
  if (meta == nullptr) {
    return GST_VIDEO_INFO_SIZE(&info);
  }
  gsize needed = 1;
  // Tiles are counted otherwise.
  if (GST_VIDEO_FORMAT_INFO_IS_TILED(gst_video_format_get_info(meta->format))) {
    return needed;
  }
  const bool fields = two_fields(info, buffer) && bottom_alone(buffer);
  for (guint plane = 0; plane < meta->n_planes; ++plane) {
    needed = std::max(needed, plane_end(info, *meta, plane, fields));
  }
  return needed;
}

}  // namespace

vlm::Status check_buffer(const Look& look, GstBuffer* buffer) {
  if (gst_buffer_get_size(buffer) < std::max<gsize>(bytes_needed(look.info, buffer), 1)) {
    return bad_buffer(look.info, buffer);
  }
  return vlm::ok_status();
}

FrameConverter::FrameConverter(const Look& look, std::string gpu)
    : look_(look), gpu_(std::move(gpu)) {
  gst_video_info_init(&in_);
  gst_video_info_init(&out_);
}

FrameConverter::~FrameConverter() = default;

vlm::Result<vlm::Frame> FrameConverter::convert(GstBuffer* buffer) {
  if (!check_buffer(look_, buffer)) {
    return bad_buffer(look_.info, buffer);
  }
  if (auto picture = picture_on_gpu(buffer, look_, gpu_)) {
    return vlm::Frame{picture->upright_width(), picture->upright_height(), {}, picture};
  }
  vlm::Frame picture;
  {
    const MappedFrame whole(look_.info, buffer, GST_MAP_READ);
    if (!whole.mapped) {
      return bad_buffer(look_.info, buffer);
    }
    const GstVideoFrame seen = of_one_moment(whole.frame, buffer);
    const Region region = in_lines_of(seen, whole.frame, visible(whole.frame, buffer));
    if (!take_plain(seen, region, picture) && !(prepare(seen.info, region) && run(seen, picture))) {
      return bad_buffer(look_.info, buffer);
    }
  }
  turn(picture, look_.orientation, spare_);
  return picture;
}

// In one pass, where the picture is all of a frame in a layout that has one.
bool FrameConverter::take_plain(const GstVideoFrame& frame, const Region& region,
                                vlm::Frame& picture) const {
  const int width = GST_VIDEO_FRAME_WIDTH(&frame);
  const int height = GST_VIDEO_FRAME_HEIGHT(&frame);
  if (!(region == Region{0, 0, width, height, height}) ||
      displayed_width(width, look_.info) != width) {
    return false;
  }
  picture.rgb = rgb_of_planes(frame);
  picture.width = width;
  picture.height = height;
  return !picture.rgb.empty();
}

// What the converter writes into is kept: fresh memory costs more than the conversion.
bool FrameConverter::run(const GstVideoFrame& frame, vlm::Frame& picture) {
  const bool rgb = GST_VIDEO_INFO_FORMAT(&out_) == GST_VIDEO_FORMAT_RGB;
  std::vector<uint8_t>& target = rgb ? picture.rgb : packed_;
  target.resize(out_.size);
  GstBuffer* wrapped = gst_buffer_new_wrapped_full(static_cast<GstMemoryFlags>(0), target.data(),
                                                   out_.size, 0, out_.size, nullptr, nullptr);
  GstVideoFrame mapped;
  const bool ok = gst_video_frame_map(&mapped, &out_, wrapped, GST_MAP_WRITE) != FALSE;
  if (ok) {
    gst_video_converter_frame(converter_.get(), &frame, &mapped);
    gst_video_frame_unmap(&mapped);
  }
  gst_buffer_unref(wrapped);
  picture.width = GST_VIDEO_INFO_WIDTH(&out_);
  picture.height = GST_VIDEO_INFO_HEIGHT(&out_);
  if (!ok) {
    return false;
  }
  const bool narrow =
      GST_VIDEO_INFO_IS_RGB(&in_) && in_.colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235;
  const size_t pixels = static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height);
  if (rgb) {
    if (narrow) {
      stretch(picture.rgb.data(), 3, out_, picture.rgb.data(), pixels);
    }
    return true;
  }
  if (GST_VIDEO_INFO_IS_YUV(&out_)) {
    picture.rgb = rgb_of_packed(packed_, out_);
    return true;
  }
  const auto width = static_cast<size_t>(picture.width);
  picture.rgb.resize(pixels * 3);
  for (size_t y = 0; y < static_cast<size_t>(picture.height); ++y) {
    const auto* from =
        reinterpret_cast<const uint16_t*>(packed_.data() + y * static_cast<size_t>(out_.stride[0]));
    uint8_t* to = picture.rgb.data() + y * width * 3;
    if (narrow) {
      stretch(from + 1, 4, out_, to, width);
    } else {
      deep_to_rgb(from, to, width);
    }
  }
  return true;
}

// Crop metadata, as far as it lies inside the picture.
FrameConverter::Region FrameConverter::visible(const GstVideoFrame& frame, GstBuffer* buffer) {
  const int width = GST_VIDEO_FRAME_WIDTH(&frame);
  const int height = GST_VIDEO_FRAME_HEIGHT(&frame);
  const Region whole{0, 0, width, height, height};
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
  region.lines = region.height;
  return region;
}

FrameConverter::Region FrameConverter::in_lines_of(const GstVideoFrame& seen,
                                                   const GstVideoFrame& frame, Region region) {
  const int all = GST_VIDEO_FRAME_HEIGHT(&frame);
  const int some = GST_VIDEO_FRAME_HEIGHT(&seen);
  const int end = ((region.y + region.height) * some + all - 1) / all;
  region.y = region.y * some / all;
  region.height = end - region.y;
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
  out_ = target_info(mapped, displayed_width(region.width, look_.info), region.lines);
  GstStructure* config = gst_structure_new(
      "config", GST_VIDEO_CONVERTER_OPT_SRC_X, G_TYPE_INT, region.x, GST_VIDEO_CONVERTER_OPT_SRC_Y,
      G_TYPE_INT, region.y, GST_VIDEO_CONVERTER_OPT_SRC_WIDTH, G_TYPE_INT, region.width,
      GST_VIDEO_CONVERTER_OPT_SRC_HEIGHT, G_TYPE_INT, region.height,
      GST_VIDEO_CONVERTER_OPT_DITHER_METHOD, GST_TYPE_VIDEO_DITHER_METHOD, GST_VIDEO_DITHER_NONE,
      nullptr);
  converter_.reset(gst_video_converter_new(&in_, &out_, config));
  return converter_ != nullptr;
}

}  // namespace gstvlm
