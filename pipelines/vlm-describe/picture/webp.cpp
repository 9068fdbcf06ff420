// SPDX-License-Identifier: LGPL-2.1-or-later
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "picture/codec.h"

namespace describe {

namespace {

void find_orientation(const WebPDemuxer* demuxer, Orientation& orientation) {
  for (const char* name : {"EXIF", "XMP "}) {
    WebPChunkIterator chunk = {};
    if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) == 0) continue;
    const Data data(chunk.chunk.bytes, chunk.chunk.size);
    if (name[0] == 'E') {
      orientation.exif(data);
    } else {
      orientation.xmp(data);
    }
    WebPDemuxReleaseChunkIterator(&chunk);
  }
}

}  // namespace

/// Through the animation decoder, as the reference does: a frame may cover a part of the canvas.
RawResult decode_webp(Data data) {
  WebPBitstreamFeatures features = {};
  const VP8StatusCode status = WebPGetFeatures(data.data(), data.size(), &features);
  if (status != VP8_STATUS_OK) {
    return broken("WebP", status == VP8_STATUS_NOT_ENOUGH_DATA
                              ? "the file ends in the middle of the picture"
                              : "its header is damaged");
  }
  const auto width = static_cast<uint64_t>(features.width);
  const auto height = static_cast<uint64_t>(features.height);
  if (vlm::Status size = check_size("WebP", width, height); !size) return size.error();

  WebPAnimDecoderOptions options;
  WebPAnimDecoderOptionsInit(&options);
  options.color_mode = MODE_RGBA;
  const WebPData source = {data.data(), data.size()};
  const std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)> decoder(
      WebPAnimDecoderNew(&source, &options), WebPAnimDecoderDelete);
  uint8_t* pixels = nullptr;
  int timestamp = 0;
  if (decoder == nullptr || WebPAnimDecoderGetNext(decoder.get(), &pixels, &timestamp) == 0) {
    return broken("WebP", "its data is damaged, or the file ends in the middle of the picture");
  }
  WebPAnimInfo info = {};
  WebPAnimDecoderGetInfo(decoder.get(), &info);
  if (info.canvas_width != width || info.canvas_height != height) {
    return broken("WebP", "its headers contradict each other");
  }
  RawPicture picture;
  picture.width = features.width;
  picture.height = features.height;
  picture.rgb.resize(width * height * 3);
  uint8_t* out = picture.rgb.data();
  for (uint64_t i = 0; i < width * height; ++i, pixels += 4, out += 3) {
    out[0] = pixels[0], out[1] = pixels[1], out[2] = pixels[2];
  }
  Orientation orientation;
  find_orientation(WebPAnimDecoderGetDemuxer(decoder.get()), orientation);
  picture.orientation = orientation.value();
  return picture;
}

}  // namespace describe
