// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmlayout.h"

namespace gstvlm {
namespace {

bool plain_rgb(const GstVideoInfo& info) {
  if (!GST_VIDEO_INFO_IS_RGB(&info) || GST_VIDEO_INFO_N_PLANES(&info) != 1 ||
      GST_VIDEO_INFO_N_COMPONENTS(&info) < 3 ||
      info.colorimetry.range == GST_VIDEO_COLOR_RANGE_16_235) {
    return false;
  }
  for (guint c = 0; c < 3; ++c) {
    if (GST_VIDEO_INFO_COMP_DEPTH(&info, c) != 8) {
      return false;
    }
  }
  return true;
}

// Where the rows' colour differences lie otherwise, the converter has ways of its own.
bool plain_nv12(const GstVideoInfo& info) {
  return GST_VIDEO_INFO_FORMAT(&info) == GST_VIDEO_FORMAT_NV12 &&
         (info.chroma_site == GST_VIDEO_CHROMA_SITE_UNKNOWN ||
          info.chroma_site == GST_VIDEO_CHROMA_SITE_NONE ||
          info.chroma_site == GST_VIDEO_CHROMA_SITE_H_COSITED);
}

}  // namespace

vlm::YuvMatrix matrix_of(const GstVideoInfo& info) {
  gint offset[GST_VIDEO_MAX_COMPONENTS];
  gint scale[GST_VIDEO_MAX_COMPONENTS];
  gst_video_color_range_offsets(info.colorimetry.range, info.finfo, offset, scale);
  gdouble kr = 0;
  gdouble kb = 0;
  if (!gst_video_color_matrix_get_Kr_Kb(info.colorimetry.matrix, &kr, &kb)) {
    gst_video_color_matrix_get_Kr_Kb(GST_VIDEO_COLOR_MATRIX_BT709, &kr, &kb);
  }
  const double kg = 1 - kr - kb;
  return {{offset[0], offset[1], offset[2]},
          static_cast<float>(255.0 / scale[0]),
          static_cast<float>(2 * (1 - kr) * 255.0 / scale[2]),
          static_cast<float>(2 * (1 - kb) * 255.0 / scale[1]),
          static_cast<float>(2 * (1 - kb) * kb / kg * 255.0 / scale[1]),
          static_cast<float>(2 * (1 - kr) * kr / kg * 255.0 / scale[2])};
}

vlm::PictureTurn turn_of(GstVideoOrientationMethod method) {
  vlm::PictureTurn turn;
  turn.swap = method == GST_VIDEO_ORIENTATION_90R || method == GST_VIDEO_ORIENTATION_90L ||
              method == GST_VIDEO_ORIENTATION_UL_LR || method == GST_VIDEO_ORIENTATION_UR_LL;
  turn.from_right = method == GST_VIDEO_ORIENTATION_180 || method == GST_VIDEO_ORIENTATION_HORIZ ||
                    method == GST_VIDEO_ORIENTATION_90L || method == GST_VIDEO_ORIENTATION_UR_LL;
  turn.from_bottom = method == GST_VIDEO_ORIENTATION_180 || method == GST_VIDEO_ORIENTATION_VERT ||
                     method == GST_VIDEO_ORIENTATION_90R || method == GST_VIDEO_ORIENTATION_UR_LL;
  return turn;
}

std::optional<vlm::PictureLayout> plain_layout(const GstVideoFrame& frame,
                                               GstVideoOrientationMethod method) {
  const GstVideoInfo& info = frame.info;
  const bool nv12 = plain_nv12(info);
  if ((!nv12 && !plain_rgb(info)) ||
      GST_VIDEO_INFO_INTERLACE_MODE(&info) != GST_VIDEO_INTERLACE_MODE_PROGRESSIVE ||
      GST_VIDEO_INFO_PAR_N(&info) != GST_VIDEO_INFO_PAR_D(&info)) {
    return std::nullopt;
  }
  vlm::PictureLayout layout;
  layout.width = GST_VIDEO_FRAME_WIDTH(&frame);
  layout.height = GST_VIDEO_FRAME_HEIGHT(&frame);
  for (guint plane = 0; plane < (nv12 ? 2U : 1U); ++plane) {
    layout.planes[plane] = static_cast<const uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, plane));
    layout.strides[plane] = GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane);
  }
  layout.turn = turn_of(method);
  if (nv12) {
    layout.format = vlm::PictureLayout::Format::kNv12;
    layout.matrix = matrix_of(info);
    layout.cosited = info.chroma_site == GST_VIDEO_CHROMA_SITE_H_COSITED;
  } else {
    layout.pixel_bytes = GST_VIDEO_INFO_COMP_PSTRIDE(&info, 0);
    for (guint c = 0; c < 3; ++c) {
      layout.rgb[c] = GST_VIDEO_INFO_COMP_POFFSET(&info, c);
    }
  }
  return layout;
}

}  // namespace gstvlm
