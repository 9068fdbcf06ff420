// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/config.h"

#include <gtest/gtest.h>

#include "checkpoint_writer.h"

namespace vlm {
namespace {

using test::Json;

Result<ModelConfig> read(const Json& json) {
  const test::TemporaryDirectory directory;
  directory.write("config.json", json);
  return load_model_config(directory.path());
}

/// The small checkpoint's configuration with `value` at the JSON pointer `key`.
Result<ModelConfig> read_with(const std::string& key, const Json& value) {
  Json json = test::SmallCheckpoint().config;
  json[Json::json_pointer(key)] = value;
  return read(json);
}

void expect_refused(const std::string& key, const Json& value,
                    ErrorKind kind = ErrorKind::kInvalidModel) {
  const auto config = read_with(key, value);
  ASSERT_FALSE(config) << key << " = " << value;
  EXPECT_EQ(config.error().kind, kind) << config.error().message;
  EXPECT_NE(config.error().message.find("config.json"), std::string::npos);
  const std::string name = key.substr(key.rfind('/') + 1);
  EXPECT_NE(config.error().message.find(name), std::string::npos) << config.error().message;
}

TEST(config, the_published_file_gets_the_defaults_of_the_reference) {
  const auto config = read(Json::parse(R"({
    "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "ignore_index": -100,
    "image_token_index": 32000, "pad_token_id": 32001, "projector_hidden_act": "gelu",
    "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    "tie_word_embeddings": false, "torch_dtype": "float16",
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
                    "vocab_size": 32064, "torch_dtype": "float16"},
    "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
                      "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
                      "projection_dim": 768, "vocab_size": 32000,
                      "model_type": "clip_vision_model"}})"));
  ASSERT_TRUE(config) << config.error().message;
  const TextConfig& text = config->text;
  EXPECT_EQ(text.hidden_size, 4096);
  EXPECT_EQ(text.intermediate_size, 11008);
  EXPECT_EQ(text.layers, 32);
  EXPECT_EQ(text.kv_heads, 32);
  EXPECT_EQ(text.head_dim, 128);
  EXPECT_EQ(text.max_positions, 4096);
  EXPECT_EQ(text.rms_norm_eps, 1e-5);
  EXPECT_EQ(text.rope.theta, 10000);
  EXPECT_EQ(text.activation, Activation::kSilu);
  EXPECT_EQ(config->vision.activation, Activation::kQuickGelu);
  EXPECT_EQ(config->vision.layer_norm_eps, 1e-5);
  EXPECT_EQ(config->image_tokens(), 576);
  EXPECT_EQ(config->stored_dtype, DType::kFloat16);
  EXPECT_EQ(config->eos_ids, std::vector<int64_t>{2});
  EXPECT_EQ(config->pad_id, 32001);
}

TEST(config, absent_blocks_get_their_own_defaults) {
  const auto config = read({{"model_type", "llava"}, {"image_token_index", 31999}});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->vision.image_size, 336);
  EXPECT_EQ(config->vision.layers, 24);
  EXPECT_EQ(config->text.max_positions, 2048);
  EXPECT_EQ(config->text.rms_norm_eps, 1e-6);
  EXPECT_EQ(config->stored_dtype, DType::kAuto);
  const auto present = read({{"model_type", "llava"},
                             {"image_token_id", 5},
                             {"vision_config", Json::object()},
                             {"text_config", Json::object()}});
  ASSERT_TRUE(present) << present.error().message;
  EXPECT_EQ(present->vision.image_size, 224);
  EXPECT_EQ(present->vision.patch_size, 32);
  EXPECT_EQ(present->image_token_id, 5);
}

TEST(config, both_generations_of_rope_keys_are_read) {
  const auto old = read_with("/text_config/rope_scaling", {{"type", "linear"}, {"factor", 2.5}});
  ASSERT_TRUE(old) << old.error().message;
  EXPECT_EQ(old->text.rope.type, RopeConfig::Type::kLinear);
  EXPECT_EQ(old->text.rope.factor, 2.5);
  const auto fresh = read_with("/text_config/rope_parameters", {{"rope_type", "llama3"},
                                                                {"rope_theta", 5e5},
                                                                {"factor", 8},
                                                                {"low_freq_factor", 1},
                                                                {"high_freq_factor", 4}});
  ASSERT_TRUE(fresh) << fresh.error().message;
  EXPECT_EQ(fresh->text.rope.type, RopeConfig::Type::kLlama3);
  EXPECT_EQ(fresh->text.rope.theta, 5e5);
  EXPECT_EQ(fresh->text.rope.original_max_positions, fresh->text.max_positions);
  EXPECT_TRUE(read_with("/text_config/rope_scaling", {{"type", "dynamic"}, {"factor", 2}}));
  const std::string key = "/text_config/rope_parameters";
  const auto yarn = read_with(key, {{"rope_type", "yarn"}, {"factor", 2}});
  ASSERT_FALSE(yarn);
  EXPECT_EQ(yarn.error().kind, ErrorKind::kUnsupported);
  EXPECT_NE(yarn.error().message.find("llama3"), std::string::npos);
  EXPECT_FALSE(read_with(key, {{"rope_type", "linear"}}));
  EXPECT_FALSE(read_with(key, {{"rope_type", "llama3"}, {"factor", 2}}));
}

TEST(config, feature_layers_may_be_a_list) {
  const auto config = read_with("/vision_feature_layer", {-2, 1});
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->feature_size(), 16);
  for (const Json& bad : {Json(3), Json(-4), Json(1.5), Json::array(), Json("last")}) {
    expect_refused("/vision_feature_layer", bad);
  }
}

TEST(config, wrong_types_and_absurd_sizes_are_refused) {
  for (const char* key : {"/text_config/hidden_size", "/text_config/vocab_size",
                          "/text_config/num_hidden_layers", "/vision_config/image_size",
                          "/vision_config/num_attention_heads", "/vision_config/hidden_size"}) {
    for (const Json& bad : {Json(0), Json(-1), Json("12"), Json(int64_t{1} << 62), Json(UINT64_MAX),
                            Json(1.5), Json(true), Json::array({1, 2})}) {
      const bool list = std::string(key).ends_with("image_size") && bad.is_array();
      expect_refused(key, bad, list ? ErrorKind::kUnsupported : ErrorKind::kInvalidModel);
    }
  }
  expect_refused("/text_config/rms_norm_eps", "small");
  expect_refused("/text_config", 7);
  expect_refused("/tie_word_embeddings", "no");
}

TEST(config, sizes_that_do_not_divide_are_refused) {
  expect_refused("/text_config/num_attention_heads", 5);
  expect_refused("/text_config/num_key_value_heads", 2);
  expect_refused("/vision_config/num_attention_heads", 3);
  expect_refused("/text_config/head_dim", 3);
  expect_refused("/vision_config/patch_size", 9);
  const auto odd = read_with("/text_config/head_dim", 6);
  ASSERT_TRUE(odd) << odd.error().message;
  EXPECT_EQ(odd->text.head_dim, 6);
}

TEST(config, an_image_token_outside_the_vocabulary_is_refused) {
  expect_refused("/image_token_index", 1'000'000);
}

TEST(config, what_is_not_supported_is_refused_by_name) {
  const auto unsupported = ErrorKind::kUnsupported;
  expect_refused("/model_type", "llava_onevision", unsupported);
  expect_refused("/architectures", {"LlavaLlamaForCausalLM"}, unsupported);
  expect_refused("/architectures", {"LlavaNextForConditionalGeneration"}, unsupported);
  expect_refused("/text_config/model_type", "qwen2", unsupported);
  expect_refused("/vision_config/model_type", "siglip_vision_model", unsupported);
  expect_refused("/quantization_config", {{"bits", 4}}, unsupported);
  expect_refused("/mm_vision_tower", "openai/clip", unsupported);
  expect_refused("/text_config/hidden_act", "mish", unsupported);
  expect_refused("/vision_config/num_channels", 1, unsupported);
  expect_refused("/torch_dtype", "float64", unsupported);
  EXPECT_FALSE(read(Json::object()));
  EXPECT_FALSE(read(Json::array()));
}

TEST(config, mistral_tells_null_from_absent) {
  Json json = test::SmallCheckpoint().config;
  json["text_config"] = {{"model_type", "mistral"}};
  const auto absent = read(json);
  ASSERT_TRUE(absent) << absent.error().message;
  EXPECT_EQ(absent->text.kv_heads, 8);
  EXPECT_EQ(absent->text.sliding_window, 4096);
  EXPECT_EQ(absent->text.intermediate_size, 14336);
  EXPECT_EQ(absent->text.max_positions, 131072);
  json["text_config"]["num_key_value_heads"] = nullptr;
  json["text_config"]["sliding_window"] = nullptr;
  json["text_config"]["attention_bias"] = true;  // a key that Mistral does not have
  const auto null = read(json);
  ASSERT_TRUE(null) << null.error().message;
  EXPECT_EQ(null->text.kv_heads, 32);
  EXPECT_EQ(null->text.sliding_window, 0);
  EXPECT_FALSE(null->text.attention_bias);
  json["text_config"]["sliding_window"] = 7;
  EXPECT_EQ(read(json)->text.sliding_window, 7);
  json["text_config"]["sliding_window"] = 0;
  EXPECT_FALSE(read(json));
}

TEST(config, the_published_next_file_gets_the_defaults_of_the_reference) {
  const auto config = read(Json::parse(R"({
    "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "image_token_index": 32000, "use_image_newline_parameter": true, "torch_dtype": "float16",
    "text_config": {"model_type": "mistral", "intermediate_size": 14336, "rms_norm_eps": 1e-5,
                    "max_position_embeddings": 32768, "num_key_value_heads": 8,
                    "rope_theta": 1000000.0, "sliding_window": null, "vocab_size": 32064}})"));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->text.rope.theta, 1e6);
  EXPECT_EQ(config->text.sliding_window, 0);
  EXPECT_EQ(config->vision.image_size, 336);
  EXPECT_EQ(config->aspect_ratio, AspectRatio::kAnyres);
  EXPECT_EQ(config->anyres.merge, PatchMerge::kSpatialUnpad);
  const auto bare = read({{"model_type", "llava_next"}, {"image_token_index", 31999}});
  ASSERT_TRUE(bare) << bare.error().message;
  EXPECT_EQ(bare->anyres.sizes, config->anyres.sizes);
  EXPECT_EQ(bare->anyres.sizes[3], (std::pair<int64_t, int64_t>{1008, 336}));
}

TEST(config, broken_tile_sizes_are_refused) {
  Json json = {{"model_type", "llava_next"}, {"image_token_index", 31999}};
  for (const Json& bad : {Json::array(), Json(336), Json("[[336, 672]]"), Json{{336, 336, 1}},
                          Json{{336, 0}}, Json{{-336, 336}}, Json{{336, 1.5}}, Json{336, 672},
                          Json{{336, 340}}, Json{{336 * 33, 336 * 33}}, Json{{336, 1 << 30}}}) {
    json["image_grid_pinpoints"] = bad;
    const auto config = read(json);
    ASSERT_FALSE(config) << bad;
    EXPECT_NE(config.error().message.find("image_grid_pinpoints"), std::string::npos);
  }
  json.erase("image_grid_pinpoints");
  json["vision_feature_select_strategy"] = "full";
  EXPECT_FALSE(read(json));
}

TEST(config, generation_settings_never_turn_sampling_on_by_themselves) {
  const test::TemporaryDirectory directory;
  ASSERT_TRUE(load_generation_config(directory.path()));
  directory.write("generation_config.json", Json{{"temperature", 0.9},
                                                 {"top_p", 0.6},
                                                 {"max_length", 4096},
                                                 {"eos_token_id", {2, 7}},
                                                 {"pad_token_id", 0}});
  auto defaults = load_generation_config(directory.path());
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_FALSE(defaults->options.temperature);
  EXPECT_FALSE(defaults->options.max_new_tokens);
  EXPECT_EQ(defaults->options.top_p, 0.6);
  EXPECT_EQ(defaults->eos_ids, (std::vector<int64_t>{2, 7}));
  EXPECT_EQ(defaults->pad_id, 0);
  directory.write("generation_config.json", Json{{"do_sample", true}, {"early_stopping", "never"}});
  defaults = load_generation_config(directory.path());
  ASSERT_TRUE(defaults);
  EXPECT_EQ(defaults->options.temperature, 1.0);
  EXPECT_EQ(defaults->options.early_stopping, EarlyStopping::kNever);
  for (const Json& bad : {Json{{"num_beams", 0}}, Json{{"top_p", 2}}, Json{{"eos_token_id", "x"}},
                          Json{{"early_stopping", 1}}, Json{{"stop_strings", {""}}}}) {
    directory.write("generation_config.json", bad);
    EXPECT_FALSE(load_generation_config(directory.path())) << bad;
  }
}

TEST(config, picture_settings_come_from_the_nested_block_first) {
  const test::TemporaryDirectory directory;
  auto config = load_preprocessor_config(directory.path());
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().kind, ErrorKind::kNotFound);
  directory.write("preprocessor_config.json", Json{{"size", 336}, {"crop_size", 336}});
  config = load_preprocessor_config(directory.path());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->shortest_edge, 336);
  EXPECT_EQ(config->crop_width, 336);
  EXPECT_TRUE(config->do_rescale);
  directory.write("processor_config.json", Json{{"patch_size", 14}});
  EXPECT_EQ(load_preprocessor_config(directory.path())->shortest_edge, 336);
  directory.write("processor_config.json",
                  Json{{"image_processor", {{"size", {{"height", 5}, {"width", 7}}}}}});
  config = load_preprocessor_config(directory.path());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_FALSE(config->shortest_edge);
  EXPECT_EQ(config->resize_height, 5);
  EXPECT_EQ(config->resize_width, 7);
  EXPECT_EQ(config->crop_width, 224);
}

TEST(config, only_llavas_own_class_pads) {
  const test::TemporaryDirectory directory;
  const auto pads = [&](const char* type) {
    directory.write("preprocessor_config.json",
                    Json{{"image_processor_type", type}, {"do_pad", true}});
    return load_preprocessor_config(directory.path())->do_pad;
  };
  EXPECT_TRUE(pads("LlavaImageProcessorFast"));
  EXPECT_FALSE(pads("CLIPImageProcessor"));
}

TEST(config, wrong_picture_settings_are_refused) {
  const test::TemporaryDirectory directory;
  for (const Json& bad :
       {Json{{"size", {{"height", 5}}}}, Json{{"size", 0}}, Json{{"size", {1, 2, 3}}},
        Json{{"size", {{"shortest_edge", 5}, {"longest_edge", 9}}}}, Json{{"crop_size", "all"}},
        Json{{"resample", 6}}, Json{{"image_mean", {1, 2}}}, Json{{"image_std", {1, 0, 1}}},
        Json{{"do_resize", 1}}, Json{{"image_processor_type", "SiglipImageProcessor"}}}) {
    directory.write("preprocessor_config.json", bad);
    EXPECT_FALSE(load_preprocessor_config(directory.path())) << bad;
  }
}

}  // namespace
}  // namespace vlm
