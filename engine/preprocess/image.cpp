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

// The mean colour, as the original has it (LLaVA mm_utils.py, expand2square).
std::array<uint8_t, kChannels> mean_colour(const PreprocessorConfig& config) {
  std::array<uint8_t, kChannels> colour;
  for (size_t i = 0; i < kChannels; ++i) {
    colour[i] = static_cast<uint8_t>(std::clamp(255 * config.mean[i], 0.0, 255.0));
  }
  return colour;
}

Bitmap on_canvas(const BitmapView& picture, const ImagePlan& plan) {
  const int64_t width = plan.canvas_width;
  Bitmap canvas{width, plan.canvas_height,
                std::vector<uint8_t>(static_cast<size_t>(width * plan.canvas_height * kChannels))};
  for (size_t i = 0; i < canvas.rgb.size(); i += kChannels) {
    std::copy(plan.fill.begin(), plan.fill.end(), canvas.rgb.begin() + static_cast<ptrdiff_t>(i));
  }
  for (int64_t y = 0; y < picture.height; ++y) {
    const uint8_t* row = picture.rgb + y * picture.width * kChannels;
    std::copy(
        row, row + picture.width * kChannels,
        canvas.rgb.begin() + ((plan.picture.top + y) * width + plan.picture.left) * kChannels);
  }
  return canvas;
}

// Where a centre crop of `out` from `in` begins; negative: so many zeros in front.
int64_t crop_offset(int64_t in, int64_t out) {
  return in >= out ? (in - out) / 2 : -((out - in + 1) / 2);
}

// A picture in the middle of a canvas: resized, and of that the middle is the input.
ImagePlan plan_of(Size picture, Size canvas, const PreprocessorConfig& config) {
  const Size size = resized(canvas, config);
  const Size out = config.do_center_crop ? Size{config.crop_height, config.crop_width} : size;
  ImagePlan plan;
  plan.picture = {(canvas.width - picture.width) / 2, (canvas.height - picture.height) / 2,
                  picture.width, picture.height};
  plan.canvas_width = canvas.width;
  plan.canvas_height = canvas.height;
  plan.fill = mean_colour(config);
  plan.width = size.width;
  plan.height = size.height;
  plan.filter = static_cast<Resample>(config.resample);
  plan.window = {std::max<int64_t>(0, crop_offset(size.width, out.width)),
                 std::max<int64_t>(0, crop_offset(size.height, out.height)),
                 std::min(size.width, out.width), std::min(size.height, out.height)};
  plan.left = -crop_offset(plan.window.width, out.width);
  plan.top = -crop_offset(plan.window.height, out.height);
  plan.out_width = out.width;
  plan.out_height = out.height;
  return plan;
}

// The window's [height, width, channel] bytes to the input's [channel, height, width] numbers at
// the end of `values`.
void append_values(std::vector<float>& values, const Bitmap& window, const ImagePlan& plan,
                   const PreprocessorConfig& config) {
  const PixelLevels levels = pixel_levels(config);
  for (size_t channel = 0; channel < kChannels; ++channel) {
    for (int64_t y = -plan.top; y < plan.out_height - plan.top; ++y) {
      for (int64_t x = -plan.left; x < plan.out_width - plan.left; ++x) {
        const bool inside = y >= 0 && y < window.height && x >= 0 && x < window.width;
        const auto at = static_cast<size_t>((y * window.width + x) * kChannels);
        values.push_back(levels[channel][inside ? window.rgb[at + channel] : 0]);
      }
    }
  }
}

void append_planned(PixelTensor& pixels, const BitmapView& canvas, const ImagePlan& plan,
                    const PreprocessorConfig& config) {
  append_values(pixels.values, resample(canvas, plan.width, plan.height, plan.filter, plan.window),
                plan, config);
  pixels.height = plan.out_height;
  pixels.width = plan.out_width;
  ++pixels.images;
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

Status check_resize(int64_t height, int64_t width, std::pair<int64_t, int64_t> size) {
  return check_memory({height, width}, {0, 0, size.second, size.first}, height,
                      {size.first, size.second});
}

std::optional<std::pair<int64_t, int64_t>> output_size(const PreprocessorConfig& config) {
  if (config.do_center_crop) return std::pair{config.crop_height, config.crop_width};
  if (config.do_resize && !config.shortest_edge) {
    return std::pair{config.resize_height, config.resize_width};
  }
  return std::nullopt;
}

// float64 product rounded to float32, then float32.
PixelLevels pixel_levels(const PreprocessorConfig& config) {
  PixelLevels levels;
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

Result<ImagePlan> plan_image(int64_t height, int64_t width, const PreprocessorConfig& config,
                             AspectRatio aspect_ratio) {
  const bool pad =
      aspect_ratio == AspectRatio::kPad || (aspect_ratio == AspectRatio::kAuto && config.do_pad);
  const int64_t longest = std::max(width, height);
  const Size canvas = pad ? Size{longest, longest} : Size{height, width};
  const ImagePlan plan = plan_of({height, width}, canvas, config);
  const Status fits =
      check_memory({height, width}, plan.window, canvas.height, {plan.height, plan.width});
  if (!fits) return fits.error();
  return plan;
}

bool keeps_size(std::pair<int64_t, int64_t> size, const PreprocessorConfig& config) {
  const auto [height, width] = size;
  const ImagePlan plan = plan_of({height, width}, {height, width}, config);
  return plan.height == height && plan.width == width && plan.out_height == height &&
         plan.out_width == width;
}

void append_image(PixelTensor& pixels, const BitmapView& picture,
                  const PreprocessorConfig& config) {
  const Size size = {picture.height, picture.width};
  append_planned(pixels, picture, plan_of(size, size, config), config);
}

Result<PixelTensor> preprocess_image(const Frame& frame, const PreprocessorConfig& config,
                                     AspectRatio aspect_ratio) {
  if (const Status status = check_frame(frame); !status) return status.error();
  const Result<ImagePlan> plan = plan_image(frame.height, frame.width, config, aspect_ratio);
  if (!plan) return plan.error();
  const BitmapView whole(frame.width, frame.height, frame.rgb.data());
  const Bitmap canvas = plan->padded() ? on_canvas(whole, *plan) : Bitmap{};
  PixelTensor pixels;
  pixels.values.reserve(static_cast<size_t>(kChannels * plan->out_height * plan->out_width));
  append_planned(pixels, canvas.rgb.empty() ? whole : BitmapView(canvas), *plan, config);
  pixels.pictures = {{frame.height, frame.width}};
  return pixels;
}

}  // namespace vlm
