// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>
#include <charconv>
#include <utility>

#include "base/json.h"
#include "loader/config.h"
#include "loader/config_keys.h"

namespace vlm {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 14;
constexpr int64_t kMaxId = int64_t{1} << 24;
constexpr size_t kMaxGrids = 256;
constexpr int64_t kMaxProjectorLayers = 64;

constexpr const char* kSupported =
    "LlavaLlamaForCausalLM (model_type llava or llava_llama) and LlavaMistralForCausalLM "
    "(llava_mistral) are supported in this layout";

/// The architecture that config.json names; empty where it names none.
std::string architecture(const JsonView& view) {
  const Json* list = view.find("architectures");
  if (!list) return {};
  if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string()) {
    view.refuse("architectures", "a list of one name is expected");
  }
  return (*list)[0].get<std::string>();
}

/// model_type of the text model.
std::string text_type(const JsonView& view) {
  const std::string type = view.string("model_type", "llava");
  const bool llama = type == "llava" || type == "llava_llama";
  if (!llama && type != "llava_mistral") view.unsupported("model_type", kSupported);
  const std::string name = architecture(view);
  if (name == "LlavaMistralForCausalLM") return "mistral";
  if (!name.empty() && name != "LlavaLlamaForCausalLM" && name != "LlavaForConditionalGeneration") {
    view.unsupported("architectures", kSupported);
  }
  return llama ? "llama" : "mistral";
}

/// Number of linear layers of mm_projector_type.
int64_t projector_layers(const JsonView& view) {
  const std::string type = view.string("mm_projector_type", "linear");
  if (type == "linear") return 1;
  if (type == "identity") return 0;
  const std::string_view name = type;
  constexpr std::string_view kStart = "mlp", kEnd = "x_gelu";
  if (name.starts_with(kStart) && name.ends_with(kEnd) &&
      name.size() > kStart.size() + kEnd.size()) {
    const char* begin = name.data() + kStart.size();
    const char* end = name.data() + name.size() - kEnd.size();
    int64_t depth = 0;
    const auto [stop, error] = std::from_chars(begin, end, depth);
    if (error == std::errc() && stop == end && depth >= 1 && depth <= kMaxProjectorLayers) {
      return depth;
    }
  }
  view.unsupported("mm_projector_type", "linear, identity and mlpNx_gelu with N up to " +
                                            std::to_string(kMaxProjectorLayers) + " are supported");
}

AspectRatio aspect_ratio(const JsonView& view) {
  const std::string name = view.string("image_aspect_ratio", "none");
  if (name == "none" || name == "square") return AspectRatio::kCrop;
  if (name == "pad") return AspectRatio::kPad;
  if (name == "anyres") return AspectRatio::kAnyres;
  view.unsupported("image_aspect_ratio", "none, square, pad and anyres are supported");
}

/// image_grid_pinpoints: a list of (width, height), or such a list written as a Python literal.
TileSizes grid_sizes(const JsonView& view) {
  constexpr const char* kKey = "image_grid_pinpoints";
  constexpr const char* kExpected = "a list of widths and heights in pixels is supported";
  const Json* value = view.find(kKey);
  if (!value) view.refuse(kKey, "image_aspect_ratio anyres needs a list of widths and heights");
  Json list = *value;
  if (list.is_string()) {
    std::string text = list.get<std::string>();
    std::replace(text.begin(), text.end(), '(', '[');
    std::replace(text.begin(), text.end(), ')', ']');
    list = Json::parse(text, nullptr, false);
  }
  if (!list.is_array() || list.empty() || list.size() > kMaxGrids) {
    view.unsupported(kKey, kExpected);
  }
  TileSizes sizes;
  for (const Json& entry : list) {
    const bool pair = entry.is_array() && entry.size() == 2;
    const auto width = pair ? whole_number(entry[0], 1, kMaxPixels) : std::nullopt;
    const auto height = pair ? whole_number(entry[1], 1, kMaxPixels) : std::nullopt;
    if (!width || !height) view.unsupported(kKey, kExpected);
    sizes.emplace_back(*height, *width);
  }
  return sizes;
}

AnyresConfig anyres(const JsonView& view, AspectRatio aspect) {
  AnyresConfig config;
  const std::string merge = view.string("mm_patch_merge_type", "flat");
  if (merge == "flat") {
    config.merge = PatchMerge::kFlat;
  } else if (merge == "spatial") {
    config.merge = PatchMerge::kSpatial;
  } else if (merge == "spatial_unpad") {
    config.merge = PatchMerge::kSpatialUnpad;
  } else {
    view.unsupported("mm_patch_merge_type", "flat, spatial and spatial_unpad are supported");
  }
  if (aspect == AspectRatio::kAnyres) config.sizes = grid_sizes(view);
  return config;
}

/// What later projects have put into the same layout.
void refuse_additions(const JsonView& view) {
  if (view.boolean("s2", false)) view.unsupported("s2", "towers of one scale are supported");
  const std::string newline = view.string("mm_newline_position", "grid");
  if (newline != "grid") view.unsupported("mm_newline_position", "grid is supported");
  if (view.has("mm_resampler_type")) {
    view.unsupported("mm_resampler_type", "models without a resampler are supported");
  }
  if (view.boolean("tune_mm_mlp_adapter", false) && view.boolean("mm_use_im_start_end", false)) {
    view.unsupported("tune_mm_mlp_adapter",
                     "false is expected beside mm_use_im_start_end, as in the original");
  }
}

bool selects_cls(const JsonView& view) {
  const std::string feature = view.string("mm_vision_select_feature", "patch");
  if (feature != "patch" && feature != "cls_patch") {
    view.unsupported("mm_vision_select_feature", "patch and cls_patch are supported");
  }
  return feature == "cls_patch";
}

void read_token_keys(const JsonView& view, ModelConfig& config) {
  config.bos_id = view.integer("bos_token_id", config.bos_id, 0, kMaxId);
  if (const auto ids = read_token_ids(view, "eos_token_id")) {
    config.eos_ids = *ids;
  } else if (view.json().contains("eos_token_id")) {  // null: nothing ends a text
    config.eos_ids.clear();
  }
  config.pad_id = read_pad_id(view);
  config.image_token_id = kNoImageToken;
}

}  // namespace

bool is_original_layout(const JsonView& view) {
  if (view.has("text_config") || view.has("vision_config")) return false;
  if (view.has("mm_vision_tower") || view.has("mm_projector_type")) return true;
  const std::string type = view.string("model_type", "");
  if (type.starts_with("llava_") && !type.starts_with("llava_next")) return true;
  const Json* list = view.find("architectures");
  return list && list->is_array() && std::any_of(list->begin(), list->end(), [](const Json& name) {
           return name.is_string() && name.get<std::string>().starts_with("Llava") &&
                  name.get<std::string>().ends_with("ForCausalLM");
         });
}

ModelConfig read_original_config(const JsonView& view) {
  refuse_quantized(view);
  refuse_additions(view);
  ModelConfig config;
  config.layout = Layout::kOriginal;
  Json text = view.json();
  text["model_type"] = text_type(view);
  config.original_mistral = text["model_type"] == "mistral";
  config.text = read_text(JsonView(text, view.file()));
  config.projector_layers = projector_layers(view);
  config.aspect_ratio = aspect_ratio(view);
  config.anyres = anyres(view, config.aspect_ratio);
  config.keep_cls = selects_cls(view);
  if (!view.has("mm_vision_select_layer")) {
    view.refuse("mm_vision_select_layer", "the number of a hidden state of the tower is expected");
  }
  config.feature_layers = {view.integer("mm_vision_select_layer", -2, -4097, 4096)};
  config.image_start_end = view.boolean("mm_use_im_start_end", false);
  config.image_patch_token = view.boolean("mm_use_im_patch_token", true);
  config.max_prompt_tokens = view.integer("tokenizer_model_max_length", 0, 0, INT64_MAX);
  const auto tower = view.string("mm_vision_tower");
  if (!tower || tower->empty()) {
    view.refuse("mm_vision_tower", "the path or hub id of a vision tower is expected");
  }
  config.vision_tower = *tower;
  config.stored_dtype = stored_dtype(view);
  read_token_keys(view, config);
  return config;
}

Result<VisionConfig> load_vision_config(const std::string& directory) {
  return as_result([&] {
    const std::string path = config_of(directory, "vision tower");
    const Json json = read_json_file(path);
    const JsonView view(json, path);
    if (const auto half = view.object("vision_config")) return read_vision(half);
    if (view.string("model_type", "") != "clip_vision_model") {
      view.unsupported("model_type", "clip, and clip_vision_model, are supported as vision tower");
    }
    return read_vision(view);
  });
}

Status set_tower(ModelConfig& config, const VisionConfig& vision, const std::string& file) {
  config.vision = vision;
  const auto refusal = [&](const std::string& what) {
    return Error{ErrorKind::kInvalidModel, file + ": " + what, {}};
  };
  const int64_t layer = config.feature_layers.at(0);
  if (layer < -vision.layers - 1 || layer > vision.layers) {
    return refusal("mm_vision_select_layer is " + std::to_string(layer) +
                   ", but the tower has the hidden states 0 to " + std::to_string(vision.layers));
  }
  if (config.projector_layers == 0 && config.feature_size() != config.text.hidden_size) {
    return refusal("mm_projector_type is identity, but the tower's hidden_size is " +
                   std::to_string(config.feature_size()) + " and the text model's " +
                   std::to_string(config.text.hidden_size));
  }
  if (!config.anyres.sizes.empty() && config.anyres.merge != PatchMerge::kFlat && config.keep_cls) {
    return refusal("mm_vision_select_feature is cls_patch, but tiles are merged without it");
  }
  if (config.anyres.sizes.empty()) return ok_status();
  const Result<bool> tiles = as_result([&] {
    const Json json = read_json_file(file);
    check_tile_sizes(JsonView(json, file), "image_grid_pinpoints", config);
    return true;
  });
  return tiles ? ok_status() : Status(tiles.error());
}

}  // namespace vlm
