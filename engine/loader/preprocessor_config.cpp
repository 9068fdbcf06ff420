// SPDX-License-Identifier: LGPL-2.1-or-later
#include <string_view>
#include <tuple>
#include <utility>

#include "base/json.h"
#include "loader/config.h"
#include "loader/config_keys.h"

namespace vlm {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 14;

enum class ProcessorClass { kClip, kLlava, kLlavaNext };

ProcessorClass processor_class(const JsonView& view, const std::string& default_class) {
  static constexpr std::pair<std::string_view, ProcessorClass> kNames[] = {
      {"CLIPImageProcessor", ProcessorClass::kClip},
      {"LlavaImageProcessor", ProcessorClass::kLlava},
      {"LlavaNextImageProcessor", ProcessorClass::kLlavaNext},
  };
  const char* key =
      view.has("image_processor_type") ? "image_processor_type" : "feature_extractor_type";
  const std::string type = view.string(key, default_class);
  for (const auto& [name, value] : kNames) {
    const std::string base(name);
    if (type == base || type == base + "Fast" || type == base + "Pil") return value;
  }
  if (type == "CLIPFeatureExtractor") return ProcessorClass::kClip;
  view.unsupported(
      key, "CLIPImageProcessor, LlavaImageProcessor and LlavaNextImageProcessor are supported");
}

/// A list of two sizes, height first.
std::pair<int64_t, int64_t> size_pair(const JsonView& view, const char* key, const Json& list) {
  const bool pair = list.size() == 2;
  const auto height = pair ? whole_number(list[0], 1, kMaxSide) : std::nullopt;
  const auto width = pair ? whole_number(list[1], 1, kMaxSide) : std::nullopt;
  if (!height || !width) {
    view.refuse(key, "two whole numbers from 1 to " + std::to_string(kMaxSide) + " are expected");
  }
  return {*height, *width};
}

std::pair<int64_t, int64_t> height_width(const JsonView& sizes) {
  const auto height = sizes.integer("height", 1, kMaxSide);
  const auto width = sizes.integer("width", 1, kMaxSide);
  if (!height) sizes.refuse("height", "a whole number is expected");
  if (!width) sizes.refuse("width", "a whole number is expected");
  return {*height, *width};
}

void set_resize(PreprocessorConfig& config, std::pair<int64_t, int64_t> size) {
  config.shortest_edge.reset();
  std::tie(config.resize_height, config.resize_width) = size;
}

void read_size(const JsonView& view, PreprocessorConfig& config) {
  const Json* value = view.find("size");
  if (!value) return;
  if (value->is_array()) return set_resize(config, size_pair(view, "size", *value));
  if (!value->is_object()) {
    const int64_t side = view.integer("size", 0, 1, kMaxSide);
    if (view.boolean("default_to_square", false)) return set_resize(config, {side, side});
    config.shortest_edge = side;
    return;
  }
  const JsonView sizes = *view.object("size");
  for (const char* key : {"longest_edge", "max_height", "max_width"}) {
    if (sizes.has(key)) {
      sizes.unsupported(key, "sizes by shortest_edge alone, or by height and width, are supported");
    }
  }
  if (!sizes.has("shortest_edge")) return set_resize(config, height_width(sizes));
  config.shortest_edge = sizes.integer("shortest_edge", 0, 1, kMaxSide);
}

void read_crop(const JsonView& view, PreprocessorConfig& config) {
  const Json* value = view.find("crop_size");
  if (!value) return;
  std::pair<int64_t, int64_t> size;
  if (value->is_array()) {
    size = size_pair(view, "crop_size", *value);
  } else if (value->is_object()) {
    size = height_width(*view.object("crop_size"));
  } else {
    size.first = size.second = view.integer("crop_size", 0, 1, kMaxSide);
  }
  std::tie(config.crop_height, config.crop_width) = size;
}

std::array<double, 3> read_colour(const JsonView& view, const char* key,
                                  std::array<double, 3> colour) {
  const Json* value = view.find(key);
  if (!value) return colour;
  if (value->is_number()) {
    colour.fill(view.number(key, 0, -1e6, 1e6));
    return colour;
  }
  if (!value->is_array() || value->size() != 3) view.refuse(key, "three numbers are expected");
  for (size_t i = 0; i < 3; ++i) {
    const Json& entry = (*value)[i];
    if (!entry.is_number() || !(entry >= -1e6 && entry <= 1e6)) {
      view.refuse(key, "three numbers are expected");
    }
    colour[i] = entry.get<double>();
  }
  return colour;
}

/// do_pad means a square for LLaVA-1.5's class, and for LLaVA-1.6's that a batch gets equally many
/// tiles, which says nothing of one picture.
void read_pad(const JsonView& view, ProcessorClass type, PreprocessorConfig& config) {
  const bool pad = view.boolean("do_pad", false);
  config.do_pad = pad && type == ProcessorClass::kLlava;
  if (pad && type == ProcessorClass::kClip && view.has("pad_size")) {
    view.unsupported("pad_size", "no padding to a given size is supported");
  }
}

PreprocessorConfig read_preprocessor(const JsonView& view, const std::string& default_class) {
  PreprocessorConfig config;
  const ProcessorClass type = processor_class(view, default_class);
  config.do_resize = view.boolean("do_resize", config.do_resize);
  config.do_center_crop = view.boolean("do_center_crop", config.do_center_crop);
  config.do_rescale = view.boolean("do_rescale", config.do_rescale);
  config.do_normalize = view.boolean("do_normalize", config.do_normalize);
  read_pad(view, type, config);
  if (type == ProcessorClass::kLlavaNext) {
    config.tile_sizes = read_tile_sizes(view, "image_grid_pinpoints");
  }
  config.resample = static_cast<int>(view.integer("resample", config.resample, 0, 5));
  config.rescale_factor = view.number("rescale_factor", config.rescale_factor, -1e6, 1e6);
  read_size(view, config);
  read_crop(view, config);
  config.mean = read_colour(view, "image_mean", config.mean);
  config.std = read_colour(view, "image_std", config.std);
  for (const double deviation : config.std) {
    if (config.do_normalize && deviation == 0) view.refuse("image_std", "no zero is expected");
  }
  return config;
}

}  // namespace

Result<PreprocessorConfig> load_preprocessor_config(const std::string& directory,
                                                    const std::string& default_class) {
  return as_result([&] {
    const std::string processor = directory + "/processor_config.json";
    if (file_exists(processor)) {
      const Json json = read_json_file(processor);
      if (const auto nested = JsonView(json, processor).object("image_processor")) {
        return read_preprocessor(*nested, default_class);
      }
    }
    const std::string path = directory + "/preprocessor_config.json";
    if (!file_exists(path)) {
      throw Failure(ErrorKind::kNotFound,
                    path +
                        ": is missing, and processor_config.json holds no image_processor "
                        "block; copy the file from the checkpoint's source");
    }
    const Json json = read_json_file(path);
    return read_preprocessor(JsonView(json, path), default_class);
  });
}

}  // namespace vlm
