// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/config.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/json.h"
#include "loader/config_keys.h"

namespace vlm {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxPixels = int64_t{1} << 14;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

constexpr const char* kSupportedModels =
    "LlavaForConditionalGeneration (model_type llava) and LlavaNextForConditionalGeneration "
    "(llava_next) with a llama or mistral text model and a clip_vision_model tower in the Hugging "
    "Face layout are supported, LlavaLlamaForCausalLM and LlavaMistralForCausalLM in the original "
    "project's";

/// The two generations by the names that config.json has for them.
struct Generation {
  const char* model_type;
  const char* architecture;
  bool tiles;
};
constexpr Generation kGenerations[] = {
    {"llava", "LlavaForConditionalGeneration", false},
    {"llava_next", "LlavaNextForConditionalGeneration", true},
};

Activation activation(const JsonView& view, const char* key, Activation fallback) {
  static const std::pair<const char*, Activation> kNames[] = {
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"gelu_python_tanh", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"gelu_accurate", Activation::kGeluTanh},
      {"quick_gelu", Activation::kQuickGelu},
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"relu", Activation::kRelu},
  };
  const auto name = view.string(key);
  if (!name) return fallback;
  for (const auto& [known, value] : kNames) {
    if (*name == known) return value;
  }
  view.unsupported(key,
                   "gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, silu and relu are supported");
}

/// A side length in pixels: a number, or a list of two equal ones.
int64_t square_side(const JsonView& view, const char* key, int64_t fallback) {
  const Json* value = view.find(key);
  if (!value || !value->is_array()) return view.integer(key, fallback, 1, kMaxPixels);
  const bool square = value->size() == 2 && (*value)[0] == (*value)[1];
  const auto side = square ? whole_number((*value)[0], 1, kMaxPixels) : std::nullopt;
  if (!side) view.unsupported(key, "one whole number, or two equal ones, are supported");
  return *side;
}

void check_divides(const JsonView& view, const char* part_key, int64_t part, const char* whole_key,
                   int64_t whole) {
  if (whole % part != 0) {
    throw Failure(ErrorKind::kInvalidModel, view.file() + ": " + view.name_of(part_key) + " is " +
                                                std::to_string(part) + ", but it must divide " +
                                                view.name_of(whole_key) + ", which is " +
                                                std::to_string(whole));
  }
}

void expect_model_type(const JsonView& view, const std::string& supported) {
  const auto type = view.string("model_type");
  if (type && *type != supported) view.unsupported("model_type", kSupportedModels);
}

}  // namespace

VisionConfig read_vision(const std::optional<JsonView>& view) {
  VisionConfig config;
  if (!view) {  // the reference's sizes for a tower that the file doesn't mention
    config.hidden_size = 1024;
    config.intermediate_size = 4096;
    config.layers = 24;
    config.heads = 16;
    config.image_size = 336;
    config.patch_size = 14;
    return config;
  }
  expect_model_type(*view, "clip_vision_model");
  config.hidden_size = view->integer("hidden_size", config.hidden_size, 1, kMaxWidth);
  config.intermediate_size =
      view->integer("intermediate_size", config.intermediate_size, 1, kMaxWidth);
  config.layers = view->integer("num_hidden_layers", config.layers, 1, kMaxLayers);
  config.heads = view->integer("num_attention_heads", config.heads, 1, kMaxWidth);
  config.channels = view->integer("num_channels", config.channels, 1, kMaxWidth);
  config.image_size = square_side(*view, "image_size", config.image_size);
  config.patch_size = square_side(*view, "patch_size", config.patch_size);
  config.activation = activation(*view, "hidden_act", config.activation);
  config.layer_norm_eps = view->number("layer_norm_eps", config.layer_norm_eps, 0, 1);
  check_divides(*view, "num_attention_heads", config.heads, "hidden_size", config.hidden_size);
  if (config.channels != 3) view->unsupported("num_channels", "3 (colour) is supported");
  if (config.patch_size > config.image_size) {
    view->refuse("patch_size", "at most image_size, which is " + std::to_string(config.image_size) +
                                   ", is expected");
  }
  return config;
}

namespace {

/// `view` holds rope_scaling or rope_parameters with one block for all layers.
RopeConfig read_rope_block(const JsonView& view, RopeConfig rope, int64_t max_positions) {
  constexpr double kMax = 1e12;
  rope.theta = view.number("rope_theta", rope.theta, 1e-6, kMax);
  if (view.number("partial_rotary_factor", 1, 0, 1) != 1) {
    view.unsupported("partial_rotary_factor", "1 (all of a head) is supported");
  }
  const char* type_key = view.has("rope_type") ? "rope_type" : "type";
  const std::string type = view.string(type_key, "default");
  if (type == "default") return rope;
  if (type == "linear") {
    rope.type = RopeConfig::Type::kLinear;
  } else if (type == "dynamic") {
    rope.type = RopeConfig::Type::kDynamic;
  } else if (type == "llama3") {
    rope.type = RopeConfig::Type::kLlama3;
  } else {
    view.unsupported(type_key, "default, linear, dynamic and llama3 are supported");
  }
  if (!view.has("factor")) view.refuse("factor", "rope type " + type + " needs a number");
  rope.factor = view.number("factor", 1, 1e-6, kMax);
  if (rope.type != RopeConfig::Type::kLlama3) return rope;
  for (const char* key : {"low_freq_factor", "high_freq_factor"}) {
    if (!view.has(key)) view.refuse(key, "rope type llama3 needs a number");
  }
  rope.low_freq_factor = view.number("low_freq_factor", 1, 1e-6, kMax);
  rope.high_freq_factor = view.number("high_freq_factor", 4, 1e-6, kMax);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    view.refuse("high_freq_factor", "more than low_freq_factor is expected");
  }
  rope.original_max_positions =
      view.integer("original_max_position_embeddings", max_positions, 1, kMaxPositions);
  return rope;
}

RopeConfig read_rope(const JsonView& text, int64_t max_positions) {
  RopeConfig rope;
  rope.theta = text.number("rope_theta", rope.theta, 1e-6, 1e12);
  if (text.number("partial_rotary_factor", 1, 0, 1) != 1) {
    text.unsupported("partial_rotary_factor", "1 (all of a head) is supported");
  }
  // An older file's block overrules a newer one's, as in the reference; an empty one says nothing.
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto block = text.object(key);
    if (!block || block->json().empty()) continue;
    rope = read_rope_block(*block, rope, max_positions);
    break;
  }
  if (rope.type == RopeConfig::Type::kLlama3) {
    rope.original_max_positions = text.integer("original_max_position_embeddings",
                                               rope.original_max_positions, 1, kMaxPositions);
  }
  return rope;
}

/// Mistral's defaults where they are not Llama's.
TextConfig mistral_defaults() {
  TextConfig config;
  config.intermediate_size = 14336;
  config.kv_heads = 8;
  config.max_positions = 4096 * 32;
  config.sliding_window = 4096;
  return config;
}

/// Mistral's keys whose null says something else than their absence: as many key heads as heads, no
/// window.
void read_mistral(const JsonView& view, TextConfig& config) {
  const Json& json = view.json();
  const int64_t kv_heads = json.contains("num_key_value_heads") ? config.heads : config.kv_heads;
  config.kv_heads = view.integer("num_key_value_heads", kv_heads, 1, kMaxWidth);
  const int64_t window = json.contains("sliding_window") ? 0 : config.sliding_window;
  config.sliding_window = view.integer("sliding_window", 1, kMaxPositions).value_or(window);
  if (view.has("layer_types")) {
    view.unsupported("layer_types", "one sliding_window for all layers is supported");
  }
}

}  // namespace

TextConfig read_text(const JsonView& view) {
  const std::string type = view.string("model_type", "llama");
  const bool mistral = type == "mistral";
  if (!mistral && type != "llama") view.unsupported("model_type", kSupportedModels);
  TextConfig config = mistral ? mistral_defaults() : TextConfig();
  config.vocab_size = view.integer("vocab_size", config.vocab_size, 1, kMaxVocab);
  config.hidden_size = view.integer("hidden_size", config.hidden_size, 1, kMaxWidth);
  config.intermediate_size =
      view.integer("intermediate_size", config.intermediate_size, 1, kMaxWidth);
  config.layers = view.integer("num_hidden_layers", config.layers, 1, kMaxLayers);
  config.heads = view.integer("num_attention_heads", config.heads, 1, kMaxWidth);
  if (mistral) {
    read_mistral(view, config);
  } else {
    config.kv_heads = view.integer("num_key_value_heads", config.heads, 1, kMaxWidth);
    config.attention_bias = view.boolean("attention_bias", config.attention_bias);
    config.mlp_bias = view.boolean("mlp_bias", config.mlp_bias);
  }
  check_divides(view, "num_attention_heads", config.heads, "hidden_size", config.hidden_size);
  check_divides(view, "num_key_value_heads", config.kv_heads, "num_attention_heads", config.heads);
  config.head_dim =
      view.integer("head_dim", config.hidden_size / config.heads, 1, kMaxWidth / config.heads);
  if (config.head_dim % 2 != 0) {
    throw Failure(ErrorKind::kInvalidModel,
                  view.file() + ": " + view.name_of("head_dim") + " is " +
                      std::to_string(config.head_dim) +
                      ", but an even number is expected, because positions rotate pairs");
  }
  config.max_positions =
      view.integer("max_position_embeddings", config.max_positions, 1, kMaxPositions);
  config.rms_norm_eps = view.number("rms_norm_eps", config.rms_norm_eps, 0, 1);
  config.activation = activation(view, "hidden_act", config.activation);
  config.tie_word_embeddings = view.boolean("tie_word_embeddings", config.tie_word_embeddings);
  config.rope = read_rope(view, config.max_positions);
  return config;
}

DType stored_dtype(const JsonView& view) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    auto name = view.string(key);
    if (!name || *name == "auto") continue;
    if (name->starts_with("torch.")) name->erase(0, 6);
    if (*name == "float32" || *name == "float") return DType::kFloat32;
    if (*name == "bfloat16") return DType::kBFloat16;
    if (*name == "float16" || *name == "half") return DType::kFloat16;
    view.unsupported(key, "float32, bfloat16 and float16 are supported");
  }
  return DType::kAuto;
}

namespace {

/// Refuses what is neither, and a type and an architecture that are not of one.
Generation find_generation(const JsonView& view) {
  refuse_quantized(view);
  if (view.has("mm_vision_tower")) {
    view.unsupported("mm_vision_tower", "either this or text_config and vision_config is expected");
  }
  const auto type = view.string("model_type");
  const Json* list = view.find("architectures");
  const auto named = [&](const Generation& generation) {
    return list->is_array() &&
           std::find(list->begin(), list->end(), generation.architecture) != list->end();
  };
  for (const Generation& generation : kGenerations) {
    if (type ? *type == generation.model_type : list && named(generation)) {
      if (list && !named(generation)) view.unsupported("architectures", kSupportedModels);
      return generation;
    }
  }
  if (type) view.unsupported("model_type", kSupportedModels);
  if (list) view.unsupported("architectures", kSupportedModels);
  view.refuse("model_type", "llava or llava_next is expected");
}

std::vector<int64_t> feature_layers(const JsonView& view, int64_t layers) {
  const Json* value = view.find("vision_feature_layer");
  std::vector<int64_t> chosen = {-2};
  const std::string expected = "a whole number from " + std::to_string(-layers - 1) + " to " +
                               std::to_string(layers) + ", or a list of such, is expected";
  if (value) {
    const Json list = value->is_array() ? *value : Json::array({*value});
    if (list.empty() || list.size() > 64) view.refuse("vision_feature_layer", expected);
    chosen.clear();
    for (const Json& entry : list) {
      const auto layer = whole_number(entry, -layers - 1, layers);
      if (!layer) view.refuse("vision_feature_layer", expected);
      chosen.push_back(*layer);
    }
  }
  return chosen;
}

bool keeps_cls(const JsonView& view) {
  const std::string strategy = view.string("vision_feature_select_strategy", "default");
  if (strategy != "default" && strategy != "full") {
    view.refuse("vision_feature_select_strategy", "default or full is expected");
  }
  return strategy == "full";
}

/// What LLaVA-1.6 says beyond LLaVA-1.5: pictures come in tiles.
void read_tiles(const JsonView& view, ModelConfig& config) {
  config.aspect_ratio = AspectRatio::kAnyres;
  config.anyres.merge = PatchMerge::kSpatialUnpad;
  config.anyres.sizes = read_tile_sizes(view, "image_grid_pinpoints");
  check_tile_sizes(view, "image_grid_pinpoints", config);
  if (config.keep_cls) {
    view.unsupported("vision_feature_select_strategy",
                     "default is supported with tiles, whose patches leave no place for CLS");
  }
}

ModelConfig read_model_config(const JsonView& view) {
  const bool tiles = find_generation(view).tiles;
  ModelConfig config;
  config.vision = read_vision(view.object("vision_config"));
  const Json none = Json::object();
  const auto given = view.object("text_config");
  const JsonView text = given ? *given : JsonView(none, view.file(), "text_config");
  config.text = read_text(text);
  // Only LLaVA-1.5 takes the text model's word for it.
  const bool tied = !tiles && config.text.tie_word_embeddings;
  config.text.tie_word_embeddings = view.boolean("tie_word_embeddings", false) || tied;
  config.projector_activation =
      activation(view, "projector_hidden_act", config.projector_activation);
  config.projector_bias = view.boolean("multimodal_projector_bias", config.projector_bias);
  config.feature_layers = feature_layers(view, config.vision.layers);
  config.keep_cls = keeps_cls(view);
  if (tiles) read_tiles(view, config);

  const char* image_key = view.has("image_token_id") ? "image_token_id" : "image_token_index";
  config.image_token_id = view.integer(image_key, config.image_token_id, 0, kMaxVocab);
  if (config.image_token_id >= config.text.vocab_size) {
    throw Failure(ErrorKind::kInvalidModel,
                  view.file() + ": " + image_key + " is " + std::to_string(config.image_token_id) +
                      ", but it must be below text_config.vocab_size, which is " +
                      std::to_string(config.text.vocab_size));
  }
  config.stored_dtype = stored_dtype(view);
  if (config.stored_dtype == DType::kAuto) config.stored_dtype = stored_dtype(text);
  const auto key_holder = [&](const char* key) { return view.has(key) ? view : text; };
  config.bos_id = key_holder("bos_token_id").integer("bos_token_id", config.bos_id, 0, kMaxVocab);
  if (const auto ids = read_token_ids(key_holder("eos_token_id"), "eos_token_id")) {
    config.eos_ids = *ids;
  } else if (text.json().contains("eos_token_id")) {  // null: nothing ends a text
    config.eos_ids.clear();
  }
  config.pad_id = read_pad_id(key_holder("pad_token_id"));
  return config;
}

}  // namespace

void refuse_quantized(const JsonView& view) {
  if (!view.has("quantization_config")) return;
  throw Failure(ErrorKind::kUnsupported,
                view.file() +
                    ": holds quantization_config, so the checkpoint is quantised; use one with "
                    "weights in float32, float16 or bfloat16");
}

std::optional<std::vector<int64_t>> read_token_ids(const JsonView& view, const char* key) {
  const Json* value = view.find(key);
  if (!value) return std::nullopt;
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<int64_t> ids;
  for (const Json& entry : list) {
    const auto id = whole_number(entry, -1, kMaxVocab);
    if (!id || list.size() > 1024) view.refuse(key, "a token id, or a list of some, is expected");
    if (*id >= 0) ids.push_back(*id);
  }
  return ids;
}

TileSizes read_tile_sizes(const JsonView& view, const char* key) {
  constexpr size_t kMaxSizes = 1024;
  const Json* list = view.find(key);
  if (!list) return {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};
  const char* expected = "a list of sizes like [336, 672] is expected";
  if (!list->is_array() || list->empty() || list->size() > kMaxSizes) view.refuse(key, expected);
  TileSizes sizes;
  for (const Json& entry : *list) {
    const bool pair = entry.is_array() && entry.size() == 2;
    const auto first = pair ? whole_number(entry[0], 1, kMaxPixels) : std::nullopt;
    const auto second = pair ? whole_number(entry[1], 1, kMaxPixels) : std::nullopt;
    if (!first || !second) view.refuse(key, expected);
    sizes.emplace_back(*first, *second);
  }
  return sizes;
}

void check_tile_sizes(const JsonView& view, const char* key, const ModelConfig& config) {
  constexpr int64_t kMaxTiles = 1024;
  const int64_t side = config.vision.image_size;
  for (const auto& [height, width] : config.anyres.sizes) {
    if (height % side != 0 || width % side != 0) {
      view.refuse(key, "multiples of the tower's image_size, which is " + std::to_string(side) +
                           ", are expected");
    }
    if (height / side * (width / side) > kMaxTiles) {
      view.unsupported(key, "up to " + std::to_string(kMaxTiles) + " tiles are supported");
    }
  }
}

std::optional<int64_t> read_pad_id(const JsonView& view) {
  const auto id = view.integer("pad_token_id", -1, kMaxVocab);
  return id && *id < 0 ? std::nullopt : id;
}

std::string config_of(const std::string& directory, const char* what) {
  std::string path = directory + "/config.json";
  if (!file_exists(path) && errno == ENOENT) {
    throw Failure(ErrorKind::kNotFound,
                  path + ": is missing, so this is no " + what + "; name the directory of a " +
                      what +
                      ", which holds config.json, or the id of one in the local cache of the "
                      "Hugging Face hub");
  }
  return path;
}

Result<ModelConfig> load_model_config(const std::string& directory) {
  return as_result([&] {
    const std::string path = config_of(directory, "model");
    const Json json = read_json_file(path);
    const JsonView view(json, path);
    return is_original_layout(view) ? read_original_config(view) : read_model_config(view);
  });
}

}  // namespace vlm
