// SPDX-License-Identifier: LGPL-2.1-or-later
#include "preprocess/image.h"

#include <algorithm>
#include <array>
#include <string>

#include "preprocess/resample.h"

namespace vlm {
namespace {

constexpr int64_t kChannels = 3;
constexpr int64_t kMostPixels = int64_t{1} << 28;  ///< of any picture that is really made

struct Size {
  int64_t height = 0;
  int64_t width = 0;
};

Error bad_frame(const std::string& what) {
  return {ErrorKind::kInvalidArgument, what, {}};
}

std::string text(Size size) {
  return std::to_string(size.width) + "×" + std::to_string(size.height);
}

// The short side becomes what the configuration says, the long one follows, truncated.
Size resized(Size from, const PreprocessorConfig& config) {
  if (!config.do_resize) return from;
  if (!config.shortest_edge) return {config.resize_height, config.resize_width};
  const int64_t edge = *config.shortest_edge;
  const auto follow = [edge](int64_t longer, int64_t shorter) {
    return static_cast<int64_t>(static_cast<double>(edge * longer) / static_cast<double>(shorter));
  };
  if (from.width <= from.height) return {follow(from.height, from.width), edge};
  return {edge, follow(from.width, from.height)};
}

// On a square canvas of the mean colour, in the middle (LLaVA mm_utils.py, expand2square).
Bitmap padded(const BitmapView& picture, const PreprocessorConfig& config) {
  const int64_t side = std::max(picture.width, picture.height);
  Bitmap canvas{side, side, std::vector<uint8_t>(static_cast<size_t>(side * side * kChannels))};
  std::array<uint8_t, kChannels> colour;
  for (size_t i = 0; i < kChannels; ++i) {
    colour[i] = static_cast<uint8_t>(std::clamp(255 * config.mean[i], 0.0, 255.0));
  }
  for (size_t i = 0; i < canvas.rgb.size(); i += kChannels) {
    std::copy(colour.begin(), colour.end(), canvas.rgb.begin() + static_cast<ptrdiff_t>(i));
  }
  const int64_t left = (side - picture.width) / 2;
  const int64_t top = (side - picture.height) / 2;
  for (int64_t y = 0; y < picture.height; ++y) {
    const uint8_t* row = picture.rgb + y * picture.width * kChannels;
    std::copy(row, row + picture.width * kChannels,
              canvas.rgb.begin() + ((top + y) * side + left) * kChannels);
  }
  return canvas;
}

// Where a centre crop of `out` from `in` begins; negative: so many zeros in front.
int64_t crop_offset(int64_t in, int64_t out) {
  return in >= out ? (in - out) / 2 : -((out - in + 1) / 2);
}

// Rescaled and normalised value of each byte: float64 product rounded to float32, then float32.
using Levels = std::array<std::array<float, 256>, kChannels>;

Levels make_levels(const PreprocessorConfig& config) {
  Levels levels;
  for (size_t channel = 0; channel < kChannels; ++channel) {
    for (size_t byte = 0; byte < 256; ++byte) {
      auto value = static_cast<float>(byte);
      if (config.do_rescale) {
        value = static_cast<float>(static_cast<double>(byte) * config.rescale_factor);
      }
      if (config.do_normalize) {
        value = (value - static_cast<float>(config.mean[channel])) /
                static_cast<float>(config.std[channel]);
      }
      levels[channel][byte] = value;
    }
  }
  return levels;
}

// What becomes of a picture of some size: it is resized, and `window` of that ends in a picture of
// size `out`.
struct Target {
  Size size;
  Size out;
  Window window;
};

Target target_of(Size from, const PreprocessorConfig& config) {
  const Size size = resized(from, config);
  const Size out = config.do_center_crop ? Size{config.crop_height, config.crop_width} : size;
  const int64_t left = std::max<int64_t>(0, crop_offset(size.width, out.width));
  const int64_t top = std::max<int64_t>(0, crop_offset(size.height, out.height));
  return {
      size, out, {left, top, std::min(size.width, out.width), std::min(size.height, out.height)}};
}

// [height, width, channel] bytes to [channel, height, width] numbers at the end of `values`, in the
// middle of black where the picture is smaller.
void append_values(std::vector<float>& values, const Bitmap& picture, Size size,
                   const PreprocessorConfig& config) {
  const Levels levels = make_levels(config);
  const int64_t top = crop_offset(picture.height, size.height);
  const int64_t left = crop_offset(picture.width, size.width);
  for (size_t channel = 0; channel < kChannels; ++channel) {
    for (int64_t y = top; y < top + size.height; ++y) {
      for (int64_t x = left; x < left + size.width; ++x) {
        const bool inside = y >= 0 && y < picture.height && x >= 0 && x < picture.width;
        const auto at = static_cast<size_t>((y * picture.width + x) * kChannels);
        values.push_back(levels[channel][inside ? picture.rgb[at + channel] : 0]);
      }
    }
  }
}

// Between the passes a picture is as wide as the result and as high as the frame.
Status check_memory(Size frame, const Window& window, int64_t from_height, Size size) {
  if (static_cast<double>(window.width) *
              static_cast<double>(std::max(window.height, from_height)) <=
          kMostPixels &&
      frame.width <= kMostPixels / frame.height) {
    return ok_status();
  }
  return bad_frame("a frame of " + text(frame) +
                   " pixels is too large or too extreme a shape for this checkpoint, which would "
                   "make it " +
                   text(size) + ": scale or crop it first");
}

}  // namespace

Status check_frame(const Frame& frame) {
  if (frame.width < 1 || frame.height < 1) {
    return bad_frame("a frame has the size " + text({frame.height, frame.width}) +
                     ": both sides must be at least 1 pixel");
  }
  const uint64_t bytes =
      static_cast<uint64_t>(frame.width) * static_cast<uint64_t>(frame.height) * 3;
  if (frame.rgb.size() != bytes) {
    return bad_frame("a frame of " + text({frame.height, frame.width}) + " pixels has " +
                     std::to_string(frame.rgb.size()) + " bytes, expected " +
                     std::to_string(bytes));
  }
  return ok_status();
}

Status check_resize(const Frame& frame, std::pair<int64_t, int64_t> size) {
  return check_memory({frame.height, frame.width}, {0, 0, size.second, size.first}, frame.height,
                      {size.first, size.second});
}

std::optional<std::pair<int64_t, int64_t>> output_size(const PreprocessorConfig& config) {
  if (config.do_center_crop) return std::pair{config.crop_height, config.crop_width};
  if (config.do_resize && !config.shortest_edge) {
    return std::pair{config.resize_height, config.resize_width};
  }
  return std::nullopt;
}

void append_image(PixelTensor& pixels, const BitmapView& picture,
                  const PreprocessorConfig& config) {
  const Target target = target_of({picture.height, picture.width}, config);
  append_values(pixels.values,
                resample(picture, target.size.width, target.size.height,
                         static_cast<Resample>(config.resample), target.window),
                target.out, config);
  pixels.height = target.out.height;
  pixels.width = target.out.width;
  ++pixels.images;
}

Result<PixelTensor> preprocess_image(const Frame& frame, const PreprocessorConfig& config,
                                     AspectRatio aspect_ratio) {
  if (const Status status = check_frame(frame); !status) return status.error();
  const bool pad =
      aspect_ratio == AspectRatio::kPad || (aspect_ratio == AspectRatio::kAuto && config.do_pad);
  const int64_t longest = std::max(frame.width, frame.height);
  const Size from = pad ? Size{longest, longest} : Size{frame.height, frame.width};
  const Target target = target_of(from, config);
  const Status fits =
      check_memory({frame.height, frame.width}, target.window, from.height, target.size);
  if (!fits) return fits.error();
  const BitmapView whole(frame.width, frame.height, frame.rgb.data());
  const Bitmap square = pad && frame.width != frame.height ? padded(whole, config) : Bitmap{};
  PixelTensor pixels;
  pixels.values.reserve(static_cast<size_t>(kChannels * target.out.height * target.out.width));
  append_image(pixels, square.rgb.empty() ? whole : BitmapView(square), config);
  pixels.pictures = {{frame.height, frame.width}};
  return pixels;
}

}  // namespace vlm
