// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/original.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "checkpoint_writer.h"
#include "loader/checkpoint.h"
#include "loader/hub.h"
#include "text/prompt.h"
#include "torch_writer.h"

namespace vlm {
namespace {

using test::Json;
using test::Shapes;
using test::TemporaryDirectory;

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

/// A small checkpoint in the original layout: `model` and `tower` below one directory.
struct SmallOriginal {
  TemporaryDirectory root;
  Json config;
  Shapes text, projector, vision;
  test::SmallCheckpoint parts;

  SmallOriginal() {
    config = parts.config["text_config"];
    const auto pieces = static_cast<int>(parts.pieces.size());
    config.update({{"architectures", {"LlavaLlamaForCausalLM"}},
                   {"model_type", "llava"},
                   {"vocab_size", pieces},
                   {"mm_vision_tower", root.file("tower")},
                   {"mm_projector_type", "mlp2x_gelu"},
                   {"mm_vision_select_layer", -2},
                   {"mm_use_im_patch_token", false},
                   {"image_aspect_ratio", "pad"}});
    for (auto [name, shape] : parts.shapes) {
      if (name.starts_with("vision_tower.")) {
        vision[name.substr(13)] = shape;
      } else if (name.starts_with("language_model.")) {
        if (shape[0] == pieces + 2) shape[0] = pieces;
        text[name.substr(15)] = shape;
      } else {
        const bool first = name.find("linear_1") != std::string::npos;
        projector["model.mm_projector." + std::string(first ? "0" : "2") +
                  name.substr(name.rfind('.'))] = shape;
      }
    }
  }

  std::string model() const { return root.file("model"); }

  void write_tower(const std::string& folder) const {
    std::filesystem::create_directories(root.file(folder));
    root.write(folder + "/config.json",
               Json{{"model_type", "clip"}, {"vision_config", parts.config["vision_config"]}});
    root.write(
        folder + "/preprocessor_config.json",
        Json{{"feature_extractor_type", "CLIPFeatureExtractor"}, {"size", 8}, {"crop_size", 8}});
    Shapes shapes = vision;
    shapes["text_model.final_layer_norm.weight"] = {3};
    shapes["logit_scale"] = {};
    root.write(folder + "/model.safetensors", test::safetensors(shapes));
  }
  void write_text(const std::string& folder, const Shapes& shapes) const {
    std::filesystem::create_directories(root.file(folder));
    root.write(folder + "/model.safetensors", test::safetensors(shapes));
    root.write(folder + "/tokenizer.model", test::sentencepiece_model(parts.pieces));
  }
  void write_config() const {
    std::filesystem::create_directories(model());
    root.write("model/config.json", config);
  }
  /// The tower apart, the rest in the model's directory.
  void write() const {
    write_config();
    write_tower("tower");
    Shapes all = text;
    all.insert(projector.begin(), projector.end());
    write_text("model", all);
  }
  /// `tensors` as torch.save writes them, all in one storage.
  void write_bin(const std::string& name, const Shapes& tensors) const {
    std::vector<test::PickledView> views;
    int64_t elements = 0;
    for (const auto& [tensor, shape] : tensors) {
      test::PickledView view{tensor, "FloatStorage", "0", 0, elements, shape, shape};
      int64_t stride = 1;
      for (size_t i = shape.size(); i > 0; --i) {
        view.strides[i - 1] = stride;
        stride *= shape[i - 1];
      }
      elements += stride;
      views.push_back(view);
    }
    for (test::PickledView& view : views) view.elements = elements;
    root.write(name,
               test::torch_archive(test::state_dict(views),
                                   {{"0", std::string(static_cast<size_t>(elements) * 4, 0)}}));
  }

  Result<std::shared_ptr<const Checkpoint>> open(ModelSpec spec = {}) const {
    if (spec.model.empty()) spec.model = model();
    return Checkpoint::open(spec);
  }
  std::string complaint(const ModelSpec& spec = {}) const {
    const auto checkpoint = open(spec);
    return checkpoint ? "" : checkpoint.error().message;
  }
};

/// The complaint about config.json with `key` set to `value`.
std::string complaint_with(const char* key, const Json& value) {
  SmallOriginal checkpoint;
  checkpoint.config[key] = value;
  checkpoint.write();
  return checkpoint.complaint();
}

TEST(original, a_checkpoint_opens_with_its_tower_apart) {
  SmallOriginal small;
  small.write();
  const auto checkpoint = small.open();
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_EQ(config.layout, Layout::kOriginal);
  EXPECT_EQ(config.aspect_ratio, AspectRatio::kPad);
  EXPECT_EQ(config.vision.image_size, 8);
  EXPECT_EQ(config.image_token_id, kNoImageToken);
  EXPECT_TRUE((*checkpoint)->weights().find("vision_tower.vision_model.pre_layrnorm.weight"));
  EXPECT_TRUE((*checkpoint)->weights().find("multi_modal_projector.linear_2.bias"));
}

TEST(original, absent_keys_have_the_projects_defaults) {
  SmallOriginal small;
  for (const char* key : {"mm_projector_type", "image_aspect_ratio", "mm_use_im_patch_token"}) {
    small.config.erase(key);
  }
  small.write_config();
  const auto config = load_model_config(small.model());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->projector_layers, 1);
  EXPECT_EQ(config->aspect_ratio, AspectRatio::kCrop);
  EXPECT_TRUE(config->image_patch_token);
  EXPECT_FALSE(config->image_start_end);
  EXPECT_FALSE(config->keep_cls);
  EXPECT_EQ(config->max_prompt_tokens, 0);
  EXPECT_EQ(config->anyres.merge, PatchMerge::kFlat);
}

TEST(original, grids_are_lists_or_python_literals_of_widths_and_heights) {
  SmallOriginal small;
  small.config["image_aspect_ratio"] = "anyres";
  for (const Json& grids : {Json({{8, 16}, {24, 8}}), Json("[(8, 16), (24, 8)]")}) {
    small.config["image_grid_pinpoints"] = grids;
    small.write_config();
    const auto config = load_model_config(small.model());
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->anyres.sizes, (TileSizes{{16, 8}, {8, 24}}));
  }
}

TEST(original, what_is_not_supported_is_refused_by_name) {
  EXPECT_HAS(complaint_with("model_type", "llava_mpt"), "llava_mpt");
  EXPECT_HAS(complaint_with("architectures", {"LlavaMptForCausalLM"}), "LlavaMptForCausalLM");
  EXPECT_HAS(complaint_with("architectures", {"LlavaQwenForCausalLM"}), "LlavaQwenForCausalLM");
  for (const char* type : {"mlp2x_res2x_gelu", "mlpx_gelu", "mlp0x_gelu", "resampler"}) {
    EXPECT_HAS(complaint_with("mm_projector_type", type), "linear, identity and mlpNx_gelu");
  }
  EXPECT_HAS(complaint_with("image_aspect_ratio", "anyres_max_9"), "anyres_max_9");
  EXPECT_HAS(complaint_with("mm_patch_merge_type", "slicefour_unpad"), "slicefour_unpad");
  EXPECT_HAS(complaint_with("mm_newline_position", "one_token"), "one_token");
  EXPECT_HAS(complaint_with("mm_resampler_type", "spatial_pool"), "spatial_pool");
  EXPECT_HAS(complaint_with("s2", true), "s2");
  EXPECT_HAS(complaint_with("mm_vision_select_feature", "cls"), "patch and cls_patch");
  EXPECT_HAS(complaint_with("mm_vision_select_layer", nullptr), "mm_vision_select_layer");
  EXPECT_HAS(complaint_with("mm_vision_select_layer", -4), "hidden states 0 to 2");
  EXPECT_HAS(complaint_with("mm_vision_tower", nullptr), "mm_vision_tower");
  EXPECT_HAS(complaint_with("quantization_config", {{"bits", 4}}), "quantised");
  EXPECT_HAS(complaint_with("mm_projector_type", "identity"), "identity");
}

TEST(original, grids_that_are_no_sizes_are_refused) {
  SmallOriginal small;
  small.config["image_aspect_ratio"] = "anyres";
  small.write();
  EXPECT_HAS(small.complaint(), "image_grid_pinpoints");
  for (const Json& grids :
       {Json("(1x1),...,(6x6)"), Json(Json::array()), Json({{8}}), Json({{8, 0}})}) {
    small.config["image_grid_pinpoints"] = grids;
    small.write_config();
    EXPECT_HAS(small.complaint(), "image_grid_pinpoints");
  }
  small.config["image_grid_pinpoints"] = {{8, 12}};
  small.write_config();
  EXPECT_HAS(small.complaint(), "12");
}

TEST(original, either_layouts_names_work_and_unknown_ones_are_refused) {
  SmallOriginal small;
  small.write();
  Shapes hugging_face;
  for (const auto& [name, shape] : small.text) hugging_face["language_model." + name] = shape;
  for (const auto& [name, shape] : small.parts.shapes) {
    if (name.starts_with("multi_modal")) hugging_face[name] = shape;
  }
  small.write_text("model", hugging_face);
  EXPECT_EQ(small.complaint(), "");
  hugging_face["model.mm_projector.1.weight"] = {1};
  small.write_text("model", hugging_face);
  EXPECT_HAS(small.complaint(), "model.mm_projector.1.weight");
  small.write_text("model", small.text);
  EXPECT_HAS(small.complaint(), "multi_modal_projector.linear_1.weight (and 3 more) is missing");
}

TEST(original, hugging_face_architectures_take_the_originals_names) {
  test::SmallCheckpoint small;
  Shapes renamed;
  for (const auto& [name, shape] : small.shapes) {
    renamed[name.starts_with("language_model.") ? name.substr(15) : name] = shape;
  }
  small.shapes = renamed;
  const TemporaryDirectory directory;
  small.write(directory);
  ModelSpec spec;
  spec.model = directory.path();
  const auto checkpoint = Checkpoint::open(spec);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
}

TEST(original, the_tower_is_found_where_it_is) {
  const SmallOriginal cache;
  ::setenv("HF_HUB_CACHE", cache.root.file("hub").c_str(), 1);
  SmallOriginal small;
  small.config["mm_vision_tower"] = "openai/some-tower";
  small.write();
  const std::string refusal = small.complaint();
  EXPECT_HAS(refusal, "--vision-tower DIR");
  EXPECT_HAS(refusal, "hf download openai/some-tower");
  EXPECT_HAS(refusal, cache.root.file("hub"));

  ModelSpec named;
  named.model = small.model();
  named.vision_tower = small.root.file("tower");
  EXPECT_EQ(small.complaint(named), "");
  named.vision_tower = small.root.file("nowhere");
  EXPECT_HAS(small.complaint(named), "no such vision tower directory");

  const std::string repository = "hub/models--openai--some-tower";
  std::filesystem::create_directories(cache.root.file(repository + "/refs"));
  cache.root.write(repository + "/refs/main", std::string("abc123\n"));
  EXPECT_NE(small.complaint(), "");
  cache.write_tower(repository + "/snapshots/abc123");
  EXPECT_EQ(small.complaint(), "");
  cache.root.write(repository + "/refs/main", std::string("../.."));
  EXPECT_NE(small.complaint(), "");

  small.write_tower("some-tower");
  EXPECT_EQ(small.complaint(), "");
  ::unsetenv("HF_HUB_CACHE");
}

TEST(original, a_hub_id_in_place_of_a_directory_is_looked_up) {
  const SmallOriginal small;
  small.write();
  ::setenv("HF_HUB_CACHE", small.root.file("hub").c_str(), 1);
  ModelSpec spec;
  spec.model = "someone/llava-v1.5-tiny";
  EXPECT_HAS(small.complaint(spec), "hf download someone/llava-v1.5-tiny");
  const std::string repository = small.root.file("hub/models--someone--llava-v1.5-tiny");
  std::filesystem::create_directories(repository + "/refs");
  std::filesystem::create_directories(repository + "/snapshots");
  std::filesystem::rename(small.model(), repository + "/snapshots/f00");
  small.root.write("hub/models--someone--llava-v1.5-tiny/refs/main", std::string("f00"));
  const auto checkpoint = small.open(spec);
  ::unsetenv("HF_HUB_CACHE");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->name(), "llava-v1.5-tiny");
}

TEST(original, the_hub_cache_is_where_hugging_face_has_it) {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) {
    ::unsetenv(name);
  }
  ::setenv("HOME", "/home/x", 1);
  EXPECT_EQ(hub_cache(), "/home/x/.cache/huggingface/hub");
  ::setenv("XDG_CACHE_HOME", "/xdg", 1);
  EXPECT_EQ(hub_cache(), "/xdg/huggingface/hub");
  ::setenv("HF_HOME", "~/hf", 1);
  EXPECT_EQ(hub_cache(), "/home/x/hf/hub");
  ::setenv("HUGGINGFACE_HUB_CACHE", "/older", 1);
  EXPECT_EQ(hub_cache(), "/older");
  ::setenv("HF_HUB_CACHE", "/newer", 1);
  EXPECT_EQ(hub_cache(), "/newer");
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) {
    ::unsetenv(name);
  }
}

TEST(original, hub_ids_are_two_names) {
  EXPECT_TRUE(is_hub_id("llava-hf/llava-1.5-7b-hf"));
  for (const char* other : {"", "llava", "a/b/c", "../b", "a/..", "/b", "a/", "a/b c", "./model"}) {
    EXPECT_FALSE(is_hub_id(other)) << other;
  }
}

TEST(original, a_projector_alone_needs_its_base) {
  SmallOriginal small;
  small.write_config();
  small.write_tower("tower");
  small.write_bin("model/mm_projector.bin", small.projector);
  EXPECT_HAS(small.complaint(), "--model-base");
  small.write_text("base", small.text);
  ModelSpec spec;
  spec.model = small.model();
  spec.model_base = small.root.file("base");
  EXPECT_EQ(small.complaint(spec), "");

  small.root.remove("model/mm_projector.bin");
  EXPECT_HAS(small.complaint(spec), "takes no model base");
}

TEST(original, adapters_lie_on_the_matrices_of_the_base) {
  SmallOriginal small;
  small.write_config();
  small.write_tower("tower");
  small.write_text("base", small.text);
  Shapes trained;
  for (const auto& [name, shape] : small.projector) trained["base_model.model." + name] = shape;
  small.write_bin("model/non_lora_trainables.bin", trained);
  const std::string module = "base_model.model.model.layers.0.self_attn.k_proj.";
  Shapes adapter = {{module + "lora_A.weight", {2, 12}}, {module + "lora_B.weight", {4, 2}}};
  small.write_bin("model/adapter_model.bin", adapter);
  Json config = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 8}, {"bias", "none"}};
  small.root.write("model/adapter_config.json", config);
  EXPECT_HAS(small.complaint(), "--model-base");
  ModelSpec spec;
  spec.model = small.model();
  spec.model_base = small.root.file("base");
  const auto checkpoint = small.open(spec);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const StoredTensor* matrix =
      (*checkpoint)->weights().find("language_model.model.layers.0.self_attn.k_proj.weight");
  ASSERT_TRUE(matrix && matrix->lora);
  EXPECT_EQ(matrix->lora->scale, 4.0);

  for (const auto& [key, value] :
       std::vector<std::pair<std::string, Json>>{{"peft_type", "IA3"},
                                                 {"use_dora", true},
                                                 {"use_rslora", true},
                                                 {"bias", "all"},
                                                 {"fan_in_fan_out", true},
                                                 {"r", 0},
                                                 {"lora_alpha", nullptr},
                                                 {"rank_pattern", {{"q", 4}}},
                                                 {"modules_to_save", {"x"}},
                                                 {"init_lora_weights", "pissa"}}) {
    Json bent = config;
    bent[key] = value;
    small.root.write("model/adapter_config.json", bent);
    EXPECT_HAS(small.complaint(spec), key);
  }
  small.root.write("model/adapter_config.json", config);
  for (const auto& [bent, words] : std::vector<std::pair<Shapes, std::string>>{
           {{{module + "lora_A.weight", {2, 12}}}, "lacks its other factor"},
           {{{module + "lora_A.weight", {2, 11}}, {module + "lora_B.weight", {4, 2}}},
            "do not fit"},
           {{{module + "lora_magnitude_vector", {4}}}, "neither lora_A nor lora_B"},
           {{{"base_model.model.model.x.lora_A.weight", {2, 12}},
             {"base_model.model.model.x.lora_B.weight", {4, 2}}},
            "no place in the base model"}}) {
    small.write_bin("model/adapter_model.bin", bent);
    EXPECT_HAS(small.complaint(spec), words);
  }
  small.root.remove("model/non_lora_trainables.bin");
  EXPECT_HAS(small.complaint(spec), "non_lora_trainables.bin");
}

TEST(original, only_this_layout_takes_a_base_or_a_tower) {
  const TemporaryDirectory directory;
  test::SmallCheckpoint().write(directory);
  ModelSpec spec;
  spec.model = directory.path();
  spec.model_base = directory.path();
  EXPECT_HAS(Checkpoint::open(spec).error().message, "takes no separate model base");
}

TEST(original, the_vocabulary_gets_the_tokenizers_size) {
  SmallOriginal small;
  const auto pieces = static_cast<int64_t>(small.parts.pieces.size());
  for (auto& [name, shape] : small.text) {
    if (shape[0] == pieces) shape[0] = pieces + 10;
  }
  small.config["vocab_size"] = pieces + 10;
  small.config["mm_use_im_start_end"] = true;
  small.write();
  const auto checkpoint = small.open();
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->config().text.vocab_size, pieces + 2);
  const StoredTensor* head = (*checkpoint)->weights().find("language_model.lm_head.weight");
  EXPECT_EQ(head->shape, (std::vector<int64_t>{pieces + 2, 12}));
  EXPECT_EQ(head->bytes, static_cast<size_t>(pieces + 2) * 12 * 4);
  EXPECT_EQ((*checkpoint)->tokenizer().id_of("<im_start>"), pieces);
}

TEST(original, the_patch_token_alone_may_lack_a_row) {
  SmallOriginal small;
  small.config.erase("mm_use_im_patch_token");
  small.write();
  EXPECT_EQ(small.complaint(), "");
  small.config["mm_use_im_start_end"] = true;
  small.write_config();
  EXPECT_HAS(small.complaint(), "mm_use_im_start_end");
}

TEST(original, the_name_chooses_the_conversation) {
  EXPECT_EQ(format_for_model("LLaVA-Llama-2-13b"), "llava_llama_2");
  EXPECT_EQ(format_for_model("llava-v1.6-mistral-7b"), "mistral_instruct");
  EXPECT_EQ(format_for_model("llava-v1.6-34b"), "chatml_direct");
  EXPECT_EQ(format_for_model("llava-v1.5-7b"), "llava_v1");
  EXPECT_EQ(format_for_model("llava-mpt-7b"), "mpt");
  EXPECT_EQ(format_for_model("my-llava_checkpoint-500"), "llava_v0");
}

TEST(original, a_training_step_is_called_after_its_training) {
  SmallOriginal small;
  small.write();
  std::filesystem::create_directories(small.root.file("llava-v1-mine"));
  const std::string step = small.root.file("llava-v1-mine/checkpoint-500");
  std::filesystem::rename(small.model(), step);
  ModelSpec spec;
  spec.model = step + "/";
  const auto checkpoint = small.open(spec);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->name(), "llava-v1-mine_checkpoint-500");
}

/// Ids and where pictures begin, `piece` for each picture.
PromptIds tokenized(const SmallOriginal& small, const std::string& text,
                    std::vector<int64_t> tokens, OriginalPrompts prompts = {}) {
  const auto checkpoint = small.open();
  return *tokenize_pieces((*checkpoint)->tokenizer(), text, kNoImageToken, tokens, prompts);
}

TEST(original, text_is_tokenised_piece_by_piece_around_pictures) {
  const SmallOriginal small;
  small.write();
  const auto& pieces = small.parts.pieces;
  const auto id = [&](const char* text) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].text == text) return static_cast<int64_t>(i);
    }
    return int64_t{-1};
  };
  const int64_t image = kNoImageToken;
  PromptIds prompt = tokenized(small, "ab<image>ab<image>", {2, 1});
  EXPECT_EQ(prompt.ids, (std::vector<int64_t>{1, id("▁ab"), image, image, id("▁ab"), image}));
  EXPECT_EQ(prompt.image_offsets, (std::vector<int64_t>{2, 5}));
  prompt = tokenized(small, "<image> ab", {1});
  EXPECT_EQ(prompt.ids, (std::vector<int64_t>{1, image, id("▁"), id("▁ab")}));
}

TEST(original, a_prompt_with_pictures_is_cut_off_where_the_checkpoint_says) {
  const SmallOriginal small;
  small.write();
  OriginalPrompts prompts;
  prompts.max_tokens = 4;
  PromptIds prompt = tokenized(small, "ab<image><image>ab", {3, 2}, prompts);
  EXPECT_EQ(prompt.ids.size(), 4u);
  EXPECT_EQ(prompt.image_offsets, (std::vector<int64_t>{2}));
  EXPECT_EQ(tokenized(small, "abc abc abc abc abc", {}, prompts).ids.size(), 6u);
}

TEST(original, pictures_stand_between_their_tokens_where_the_checkpoint_says) {
  OriginalPrompts prompts{"llava-v0", true, 0};
  const Prompt prompt{"plain", {}, {{Turn::Role::kUser, "what?"}}};
  EXPECT_EQ(*format_prompt(prompt, 1, {}, &prompts), "<im_start><image><im_end>\nwhat?\n");
  prompts.start_end = false;
  EXPECT_EQ(*format_prompt(prompt, 1, {}, &prompts), "<image>\nwhat?\n");
}

}  // namespace
}  // namespace vlm
