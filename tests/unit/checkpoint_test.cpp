// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/checkpoint.h"

#include <gtest/gtest.h>

#include "checkpoint_writer.h"
#include "loader/manifest.h"

namespace vlm {
namespace {

using test::Json;
using test::SmallCheckpoint;
using test::TemporaryDirectory;

Result<std::shared_ptr<const Checkpoint>> open(const TemporaryDirectory& directory) {
  ModelSpec spec;
  spec.model = directory.path();
  return Checkpoint::open(spec);
}

Result<std::shared_ptr<const Checkpoint>> open(const SmallCheckpoint& checkpoint) {
  const TemporaryDirectory directory;
  checkpoint.write(directory);
  return open(directory);
}

void expect_refused(const SmallCheckpoint& checkpoint, std::initializer_list<const char*> parts) {
  const auto opened = open(checkpoint);
  ASSERT_FALSE(opened);
  for (const char* part : parts) {
    EXPECT_NE(opened.error().message.find(part), std::string::npos) << opened.error().message;
  }
}

TEST(checkpoint, a_whole_one_opens) {
  const TemporaryDirectory directory;
  SmallCheckpoint().write(directory);
  const auto opened = open(directory);
  ASSERT_TRUE(opened) << opened.error().message;
  const Checkpoint& checkpoint = **opened;
  EXPECT_EQ(directory.path(), checkpoint.path());
  EXPECT_TRUE(checkpoint.path().ends_with(checkpoint.name()));
  EXPECT_EQ(checkpoint.config().stored_dtype, DType::kFloat32);  // from the weights
  EXPECT_FALSE(checkpoint.chat_template());
  EXPECT_TRUE(checkpoint.weights().find("multi_modal_projector.linear_1.weight"));
}

TEST(checkpoint, each_absent_file_is_named) {
  for (const char* name :
       {"config.json", "preprocessor_config.json", "tokenizer.model", "model.safetensors"}) {
    const TemporaryDirectory directory;
    SmallCheckpoint().write(directory);
    directory.remove(name);
    const auto opened = open(directory);
    ASSERT_FALSE(opened) << name;
    EXPECT_EQ(opened.error().kind, ErrorKind::kNotFound);
    EXPECT_NE(opened.error().message.find(name), std::string::npos) << opened.error().message;
    EXPECT_NE(opened.error().message.find("; "), std::string::npos) << opened.error().message;
  }
}

TEST(checkpoint, absent_configuration_of_the_tokenizer_is_named) {
  const TemporaryDirectory directory;
  SmallCheckpoint().write(directory);
  directory.remove("tokenizer_config.json");
  const auto opened = open(directory);
  ASSERT_FALSE(opened);
  EXPECT_NE(
      opened.error().message.find("tokenizer_config.json, which gives its number, is missing"),
      std::string::npos)
      << opened.error().message;
}

TEST(checkpoint, every_start_of_every_file_is_refused_and_never_crashes) {
  const TemporaryDirectory directory;
  SmallCheckpoint().write(directory);
  for (const char* name : {"config.json", "preprocessor_config.json", "tokenizer_config.json",
                           "tokenizer.model", "model.safetensors"}) {
    const std::string whole = directory.read(name);
    const size_t step = std::max<size_t>(1, whole.size() / 60);
    for (size_t length = 0; length < whole.size(); length += step) {
      directory.write(name, whole.substr(0, length));
      const auto opened = open(directory);
      // A sentencepiece model may end after any of its pieces.
      EXPECT_TRUE(!opened || std::string(name) == "tokenizer.model") << name << " " << length;
    }
    directory.write(name, whole);
  }
  EXPECT_TRUE(open(directory));
}

TEST(checkpoint, a_missing_tensor_is_named_with_its_shape) {
  SmallCheckpoint checkpoint;
  checkpoint.shapes.erase("multi_modal_projector.linear_2.bias");
  expect_refused(checkpoint, {"multi_modal_projector.linear_2.bias", "is missing", "[12]"});
}

TEST(checkpoint, a_misshapen_tensor_is_named_as_canonical_and_as_spelt) {
  SmallCheckpoint checkpoint;
  checkpoint.shapes.erase("language_model.model.norm.weight");
  checkpoint.shapes["model.language_model.norm.weight"] = {13};
  expect_refused(checkpoint, {"model.safetensors", "language_model.model.norm.weight",
                              "stored as model.language_model.norm.weight", "[13]", "[12]"});
}

TEST(checkpoint, an_extra_tensor_is_refused) {
  SmallCheckpoint checkpoint;
  checkpoint.shapes["image_newline"] = {12};
  expect_refused(checkpoint, {"image_newline", "no place"});
  checkpoint = SmallCheckpoint();
  checkpoint.shapes["language_model.model.layers.1.input_layernorm.weight"] = {12};
  expect_refused(checkpoint, {"layers.1.input_layernorm", "no place"});
}

TEST(checkpoint, what_nothing_reads_may_be_absent_but_not_misshapen) {
  SmallCheckpoint checkpoint;  // feature layer -2 is the first block's output
  std::erase_if(checkpoint.shapes, [](const auto& entry) {
    return entry.first.find("encoder.layers.1.") != std::string::npos ||
           entry.first.find("post_layernorm") != std::string::npos;
  });
  EXPECT_TRUE(open(checkpoint));
  checkpoint.shapes["vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias"] = {1};
  expect_refused(checkpoint, {"layers.1.mlp.fc1.bias", "[1]"});
  checkpoint = SmallCheckpoint();
  checkpoint.config["vision_feature_layer"] = -1;
  checkpoint.shapes.erase("vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias");
  expect_refused(checkpoint, {"layers.1.mlp.fc1.bias", "is missing"});
}

TEST(checkpoint, tied_tables_need_only_one_of_them) {
  const char* embedding = "language_model.model.embed_tokens.weight";
  const char* head = "language_model.lm_head.weight";
  SmallCheckpoint checkpoint;
  checkpoint.shapes.erase(head);
  expect_refused(checkpoint, {head, "is missing"});
  checkpoint.config["tie_word_embeddings"] = true;
  auto opened = open(checkpoint);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_TRUE((*opened)->config().text.tie_word_embeddings);

  checkpoint.shapes[head] = checkpoint.shapes[embedding];
  opened = open(checkpoint);
  ASSERT_TRUE(opened);
  EXPECT_FALSE((*opened)->config().text.tie_word_embeddings);  // both are there: no tie after all

  checkpoint.shapes.erase(embedding);
  opened = open(checkpoint);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)->weights().find(embedding)->data, (*opened)->weights().find(head)->data);
  checkpoint.shapes.erase(head);
  expect_refused(checkpoint, {embedding, "is missing"});
}

TEST(checkpoint, the_tower_decides_the_size_of_pictures) {
  SmallCheckpoint checkpoint;
  checkpoint.preprocessor["crop_size"] = {{"height", 8}, {"width", 9}};
  expect_refused(checkpoint, {"9×8", "8×8"});
  checkpoint.preprocessor["do_center_crop"] = false;
  expect_refused(checkpoint, {"vary", "image_size"});
  checkpoint.preprocessor["size"] = {{"height", 8}, {"width", 8}};
  EXPECT_TRUE(open(checkpoint));
}

/// A small LLaVA-1.6.
SmallCheckpoint next_checkpoint() {
  SmallCheckpoint checkpoint;
  checkpoint.config["model_type"] = "llava_next";
  checkpoint.config["architectures"] = {"LlavaNextForConditionalGeneration"};
  checkpoint.config["image_grid_pinpoints"] = {{8, 16}, {16, 16}};
  checkpoint.preprocessor["image_processor_type"] = "LlavaNextImageProcessor";
  checkpoint.preprocessor["image_grid_pinpoints"] = {{8, 16}, {16, 16}};
  checkpoint.shapes["image_newline"] = {12};
  return checkpoint;
}

TEST(checkpoint, the_generations_are_never_mistaken_for_each_other) {
  SmallCheckpoint checkpoint = next_checkpoint();
  EXPECT_TRUE(open(checkpoint));
  checkpoint.shapes.erase("image_newline");
  expect_refused(checkpoint, {"image_newline", "is missing"});
  checkpoint = SmallCheckpoint();
  checkpoint.shapes["model.image_newline"] = {12};
  expect_refused(checkpoint, {"image_newline", "has no place"});
  checkpoint = next_checkpoint();
  checkpoint.preprocessor["image_processor_type"] = "CLIPImageProcessor";
  expect_refused(checkpoint, {"LLaVA-1.6", "LlavaNextImageProcessor"});
  checkpoint.preprocessor.erase("image_processor_type");
  EXPECT_TRUE(open(checkpoint));
  checkpoint = SmallCheckpoint();
  checkpoint.preprocessor["image_processor_type"] = "LlavaNextImageProcessor";
  expect_refused(checkpoint, {"LLaVA-1.5", "CLIPImageProcessor"});
}

TEST(checkpoint, model_and_image_processor_agree_on_tiles) {
  SmallCheckpoint checkpoint = next_checkpoint();
  checkpoint.preprocessor["image_grid_pinpoints"] = {{16, 16}, {8, 16}};
  expect_refused(checkpoint, {"image_grid_pinpoints", "differ"});
  checkpoint = next_checkpoint();
  checkpoint.preprocessor["do_center_crop"] = false;
  checkpoint.preprocessor["size"] = {{"height", 8}, {"width", 8}};
  EXPECT_TRUE(open(checkpoint));
  checkpoint.preprocessor["crop_size"] = 4;
  expect_refused(checkpoint, {"crop_size", "image_size"});
}

TEST(checkpoint, the_tokenizer_must_belong_to_the_model) {
  SmallCheckpoint checkpoint;
  checkpoint.config["image_token_index"] = 5;
  expect_refused(checkpoint, {"<image>", "image_token_index"});
  checkpoint = SmallCheckpoint();
  checkpoint.pieces.push_back({"longer"});
  expect_refused(checkpoint, {"tokenizer_config.json", "<image>"});
  checkpoint = SmallCheckpoint();
  checkpoint.tokenizer["pad_token"] = "<another>";
  expect_refused(checkpoint, {"vocab_size"});
}

TEST(checkpoint, templates_are_found_in_each_of_their_places) {
  const TemporaryDirectory directory;
  SmallCheckpoint checkpoint;
  checkpoint.tokenizer["chat_template"] = {{{"name", "rag"}, {"template", "r"}},
                                           {{"name", "default"}, {"template", "t"}}};
  checkpoint.write(directory);
  const auto is_found = [&](const std::string& source, const std::string& file) {
    const auto opened = open(directory);
    const auto& found = (*opened)->chat_template();
    return found && found->source == source && found->file == directory.file(file) &&
           found->tokens.at("bos_token") == "<s>";
  };
  EXPECT_TRUE(is_found("t", "tokenizer_config.json"));
  directory.write("chat_template.jinja", std::string("j"));
  EXPECT_TRUE(is_found("j", "chat_template.jinja"));
  directory.write("chat_template.json", Json{{"chat_template", "c"}});
  EXPECT_TRUE(is_found("c", "chat_template.json"));
}

TEST(checkpoint, a_directory_without_configuration_says_what_a_model_is) {
  const TemporaryDirectory directory;
  const auto opened = open(directory);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(opened.error().message,
            directory.file("config.json") +
                ": is missing, so this is no model; name the directory of a model, which holds "
                "config.json, or the id of one in the local cache of the Hugging Face hub");
}

TEST(checkpoint, a_spec_that_names_no_directory_is_refused) {
  ModelSpec spec;
  EXPECT_EQ(Checkpoint::open(spec).error().kind, ErrorKind::kInvalidArgument);
  spec.model = "/nonexistent/model";
  EXPECT_EQ(Checkpoint::open(spec).error().kind, ErrorKind::kNotFound);
  const TemporaryDirectory directory;
  SmallCheckpoint().write(directory);
  spec.model = directory.file("config.json");
  EXPECT_EQ(Checkpoint::open(spec).error().kind, ErrorKind::kNotFound);
  spec.model = directory.path();
  spec.vision_tower = directory.path();
  EXPECT_EQ(Checkpoint::open(spec).error().kind, ErrorKind::kInvalidArgument);
}

TEST(manifest, the_feature_layers_decide_which_blocks_are_used) {
  ModelConfig config;
  config.vision.layers = 24;
  EXPECT_EQ(used_vision_layers(config), 23);
  config.feature_layers = {0};
  EXPECT_EQ(used_vision_layers(config), 0);
  config.feature_layers = {-1, 3};
  EXPECT_EQ(used_vision_layers(config), 24);
  config.feature_layers = {-25};
  EXPECT_EQ(used_vision_layers(config), 0);
}

}  // namespace
}  // namespace vlm
