// SPDX-License-Identifier: LGPL-2.1-or-later
#include "preprocess/tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace vlm {
namespace {

constexpr int64_t kChannels = 3;

double ratio(int64_t numerator, int64_t denominator) {
  return static_cast<double>(numerator) / static_cast<double>(denominator);
}

// A side of the picture at `scale`, rounded up, within the size that it is fitted into.
int64_t fitted_side(int64_t side, double scale, int64_t limit) {
  return std::min(static_cast<int64_t>(std::ceil(static_cast<double>(side) * scale)), limit);
}

// The picture's size within `best`, as large as its shape allows.
std::pair<int64_t, int64_t> fitted_size(std::pair<int64_t, int64_t> best, int64_t height,
                                        int64_t width) {
  const double by_width = ratio(best.second, width);
  const double by_height = ratio(best.first, height);
  if (by_width < by_height) return {fitted_side(height, by_width, best.first), best.second};
  return {best.first, fitted_side(width, by_height, best.second)};
}

// The original project truncates; transformers rounds to seven decimals first.
int64_t whole_lines(Layout layout, double lines) {
  const double whole = std::floor(lines);
  const bool rounds_up = layout == Layout::kHuggingFace && lines - whole > 1 - 0.5e-7;
  return static_cast<int64_t>(whole) + (rounds_up ? 1 : 0);
}

// The filter of what is done to a picture before it comes to the image processor.
Resample fitting_filter(const ModelConfig& model, const PreprocessorConfig& config) {
  return model.layout == Layout::kOriginal ? Resample::kBicubic
                                           : static_cast<Resample>(config.resample);
}

std::pair<int64_t, int64_t> base_size(const PreprocessorConfig& config) {
  if (config.shortest_edge) return {*config.shortest_edge, *config.shortest_edge};
  return {config.resize_height, config.resize_width};
}

Bitmap resized(const BitmapView& picture, std::pair<int64_t, int64_t> size, Resample filter) {
  return resample(picture, size.second, size.first, filter, {0, 0, size.second, size.first});
}

// In the middle of black.
Bitmap fitted(const BitmapView& picture, std::pair<int64_t, int64_t> best, Resample filter) {
  const auto [height, width] = best;
  const Bitmap inner = resized(picture, fitted_size(best, picture.height, picture.width), filter);
  Bitmap canvas{width, height,
                std::vector<uint8_t>(static_cast<size_t>(width * height * kChannels))};
  const int64_t left = (width - inner.width) / 2;
  const int64_t top = (height - inner.height) / 2;
  const int64_t row_bytes = inner.width * kChannels;
  for (int64_t y = 0; y < inner.height; ++y) {
    std::copy_n(inner.rgb.data() + y * row_bytes, row_bytes,
                canvas.rgb.data() + ((top + y) * width + left) * kChannels);
  }
  return canvas;
}

Bitmap cut(const Bitmap& canvas, const Window& window) {
  return resample(canvas, canvas.width, canvas.height, Resample::kBicubic, window);
}

Result<PixelTensor> preprocess_tiles(const Frame& frame, const ModelConfig& model,
                                     const PreprocessorConfig& config) {
  if (const Status status = check_frame(frame); !status) return status.error();
  const auto best = best_size(model.anyres.sizes, frame.height, frame.width);
  const auto base = base_size(config);
  for (const auto& size : {base, fitted_size(best, frame.height, frame.width)}) {
    const Status status = check_resize(frame.height, frame.width, size);
    if (!status) return status.error();
  }
  const BitmapView picture(frame.width, frame.height, frame.rgb.data());
  const Resample filter = fitting_filter(model, config);
  const TileGrid grid = picture_grid(model, AspectRatio::kAnyres, frame.height, frame.width);
  PixelTensor pixels;
  append_image(pixels, resized(picture, base, filter), config);
  pixels.values.reserve(pixels.values.size() * static_cast<size_t>(grid.images()));
  const Bitmap canvas = fitted(picture, best, filter);
  const int64_t side = model.vision.image_size;
  for (int64_t row = 0; row < grid.rows; ++row) {
    for (int64_t column = 0; column < grid.columns; ++column) {
      append_image(pixels, cut(canvas, {column * side, row * side, side, side}), config);
    }
  }
  pixels.pictures = {grid};
  return pixels;
}

// The part of `from` that lies in `tile`, both in pixels of the same picture.
Window shared_part(const Window& from, const Window& tile) {
  Window part;
  part.left = std::max(from.left, tile.left);
  part.top = std::max(from.top, tile.top);
  part.width =
      std::max<int64_t>(0, std::min(from.left + from.width, tile.left + tile.width) - part.left);
  part.height =
      std::max<int64_t>(0, std::min(from.top + from.height, tile.top + tile.height) - part.top);
  return part;
}

// `size` of the whole picture, of which what lies on `tile` when it begins at (left, top).
ImagePlan plan_tile(const ImagePlan& whole, std::pair<int64_t, int64_t> size, int64_t left,
                    int64_t top, const Window& tile) {
  const Window part = shared_part({left, top, size.second, size.first}, tile);
  ImagePlan plan = whole;
  plan.height = size.first;
  plan.width = size.second;
  plan.window = {part.left - left, part.top - top, part.width, part.height};
  plan.left = part.left - tile.left;
  plan.top = part.top - tile.top;
  plan.out_width = tile.width;
  plan.out_height = tile.height;
  return plan;
}

Result<std::vector<ImagePlan>> plan_tiles(int64_t height, int64_t width, const ModelConfig& model,
                                          const PreprocessorConfig& config) {
  const auto best = best_size(model.anyres.sizes, height, width);
  const auto base = base_size(config);
  const auto inner = fitted_size(best, height, width);
  const int64_t side = model.vision.image_size;
  if (!keeps_size(base, config) || !keeps_size({side, side}, config)) {
    return std::vector<ImagePlan>();
  }
  for (const auto& size : {base, inner}) {
    const Status status = check_resize(height, width, size);
    if (!status) return status.error();
  }
  ImagePlan whole;
  whole.picture = {0, 0, width, height};
  whole.canvas_width = width;
  whole.canvas_height = height;
  whole.filter = fitting_filter(model, config);
  std::vector<ImagePlan> plans = {plan_tile(whole, base, 0, 0, {0, 0, base.second, base.first})};
  const int64_t left = (best.second - inner.second) / 2;
  const int64_t top = (best.first - inner.first) / 2;
  const TileGrid grid = picture_grid(model, AspectRatio::kAnyres, height, width);
  for (int64_t row = 0; row < grid.rows; ++row) {
    for (int64_t column = 0; column < grid.columns; ++column) {
      plans.push_back(plan_tile(whole, inner, left, top, {column * side, row * side, side, side}));
    }
  }
  return plans;
}

}  // namespace

Result<AspectRatio> picture_aspect_ratio(const ModelConfig& model, AspectRatio asked) {
  if (asked == AspectRatio::kAuto) return model.aspect_ratio;
  if (asked == AspectRatio::kAnyres && model.anyres.sizes.empty()) {
    return Error{ErrorKind::kUnsupported,
                 "image-aspect-ratio is anyres, but this checkpoint knows no tiles "
                 "(image_grid_pinpoints), as those of LLaVA-1.6 do: use auto, crop or pad",
                 {}};
  }
  return asked;
}

std::pair<int64_t, int64_t> best_size(const TileSizes& sizes, int64_t height, int64_t width) {
  std::pair<int64_t, int64_t> best = sizes.front();
  int64_t most_kept = 0;
  int64_t least_wasted = std::numeric_limits<int64_t>::max();
  for (const auto& size : sizes) {
    const double scale = std::min(ratio(size.second, width), ratio(size.first, height));
    const auto scaled = [scale](int64_t side) {
      return static_cast<int64_t>(static_cast<double>(side) * scale);
    };
    const int64_t kept = std::min(scaled(width) * scaled(height), width * height);
    const int64_t wasted = size.first * size.second - kept;
    if (kept > most_kept || (kept == most_kept && wasted < least_wasted)) {
      most_kept = kept;
      least_wasted = wasted;
      best = size;
    }
  }
  return best;
}

TileGrid picture_grid(const ModelConfig& model, AspectRatio aspect_ratio, int64_t height,
                      int64_t width) {
  if (aspect_ratio != AspectRatio::kAnyres) return {height, width};
  const auto best = best_size(model.anyres.sizes, height, width);
  const int64_t side = model.vision.image_size;
  return {height, width, best.first / side, best.second / side};
}

Window kept_patches(const ModelConfig& model, const TileGrid& grid) {
  const int64_t side = model.vision.grid();
  Window kept{0, 0, grid.columns * side, grid.rows * side};
  if (model.anyres.merge != PatchMerge::kSpatialUnpad) return kept;
  if (ratio(grid.width, grid.height) > ratio(kept.width, kept.height)) {
    const double lines = static_cast<double>(grid.height) * ratio(kept.width, grid.width);
    kept.top = (kept.height - whole_lines(model.layout, lines)) / 2;
    kept.height -= 2 * kept.top;
  } else {
    const double lines = static_cast<double>(grid.width) * ratio(kept.height, grid.height);
    kept.left = (kept.width - whole_lines(model.layout, lines)) / 2;
    kept.width -= 2 * kept.left;
  }
  return kept;
}

bool ends_with_newline(const ModelConfig& model) {
  return model.layout == Layout::kHuggingFace && model.anyres.merge == PatchMerge::kSpatialUnpad;
}

int64_t picture_tokens(const ModelConfig& model, const TileGrid& grid) {
  if (grid.images() == 1) return model.image_tokens() + (ends_with_newline(model) ? 1 : 0);
  if (model.anyres.merge != PatchMerge::kSpatialUnpad) return grid.images() * model.image_tokens();
  const Window kept = kept_patches(model, grid);
  return model.image_tokens() + kept.height * (kept.width + 1);
}

Result<PixelTensor> preprocess_picture(const Frame& frame, const ModelConfig& model,
                                       const PreprocessorConfig& config, AspectRatio aspect_ratio) {
  return aspect_ratio == AspectRatio::kAnyres ? preprocess_tiles(frame, model, config)
                                              : preprocess_image(frame, config, aspect_ratio);
}

Result<std::vector<ImagePlan>> plan_picture(int64_t height, int64_t width, const ModelConfig& model,
                                            const PreprocessorConfig& config,
                                            AspectRatio aspect_ratio) {
  if (aspect_ratio == AspectRatio::kAnyres) return plan_tiles(height, width, model, config);
  const Result<ImagePlan> plan = plan_image(height, width, config, aspect_ratio);
  if (!plan) return plan.error();
  return std::vector{*plan};
}

}  // namespace vlm
