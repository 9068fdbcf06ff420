// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/checkpoint.h"

#include <algorithm>
#include <filesystem>

#include "base/json.h"
#include "loader/manifest.h"
#include "loader/original.h"
#include "text/token_settings.h"

namespace vlm {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

template <typename T>
T take(Result<T> result) {
  if (!result) throw Failure(result.error());
  return std::move(*result);
}

/// The checkpoint's directory.
std::string model_directory(const ModelSpec& spec) {
  if (spec.model.empty()) {
    throw Failure(ErrorKind::kInvalidArgument, "no model was named; give the directory of one");
  }
  return find_directory(spec.model, "model");
}

/// Refuses what only checkpoints of the original layout take.
void check_spec(const ModelSpec& spec) {
  if (spec.vision_tower.empty() && spec.model_base.empty()) return;
  const char* option = spec.vision_tower.empty() ? "model base" : "vision tower";
  throw Failure(ErrorKind::kInvalidArgument,
                spec.model +
                    ": is in the Hugging Face layout and holds all of its parts, so it "
                    "takes no separate " +
                    option + "; name its directory alone");
}

/// The template that `path` holds under chat_template, where it does.
std::optional<std::string> template_in(const std::string& path) {
  if (!file_exists(path)) return std::nullopt;
  const Json json = read_json_file(path);
  const JsonView view(json, path);
  const Json* value = view.find("chat_template");
  if (!value || value->is_string()) return view.string("chat_template");
  // Several named ones: the reference takes `default`.
  if (value->is_object()) return view.object("chat_template")->string("default");
  for (const Json& entry : *value) {
    const JsonView named(entry, path, "chat_template");
    if (named.string("name", "") == "default") return named.string("template");
  }
  return std::nullopt;
}

std::optional<ChatTemplate> find_chat_template(const std::string& directory) {
  ChatTemplate found;
  const auto holds_one = [&](const std::string& name) {
    found.file = directory + "/" + name;
    const bool plain = name.ends_with(".jinja") && file_exists(found.file);
    const auto source = plain                     ? read_small_file(found.file, kMaxTemplateBytes)
                        : name.ends_with(".json") ? template_in(found.file)
                                                  : std::optional<std::string>();
    found.source = source.value_or("");
    return source.has_value();
  };
  static constexpr const char* kFiles[] = {"processor_config.json", "chat_template.json",
                                           "chat_template.jinja", "tokenizer_config.json"};
  if (std::none_of(std::begin(kFiles), std::end(kFiles), holds_one)) return std::nullopt;
  const TokenSettings settings(directory);
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    if (const auto text = settings.named(name)) found.tokens[name] = *text;
  }
  return found;
}

DType dtype_of(StoredType type) {
  switch (type) {
    case StoredType::kFloat32:
      return DType::kFloat32;
    case StoredType::kFloat16:
      return DType::kFloat16;
    case StoredType::kBFloat16:
      return DType::kBFloat16;
  }
  return DType::kFloat32;
}

void check_picture_size(const ModelConfig& model, const PreprocessorConfig& preprocessor,
                        const std::string& directory) {
  const auto [height, width] = output_size(preprocessor).value_or(std::pair<int64_t, int64_t>{});
  const int64_t expected = model.vision.image_size;
  if (height == expected && width == expected) return;
  const std::string size = std::to_string(expected) + "×" + std::to_string(expected);
  throw Failure(
      ErrorKind::kInvalidModel,
      directory + ": the preprocessor configuration " +
          (height ? "makes pictures of " + std::to_string(width) + "×" + std::to_string(height)
                  : "leaves pictures in sizes that vary") +
          ", but vision_config.image_size asks for " + size);
}

/// Model and image processor must agree on tiles: the one puts together what the other cuts.
void check_tiles(const ModelConfig& model, const PreprocessorConfig& preprocessor,
                 const std::string& directory) {
  const bool tiles = !model.anyres.sizes.empty();
  if (tiles != preprocessor.tile_sizes.has_value()) {
    throw Failure(ErrorKind::kInvalidModel,
                  directory + ": config.json describes LLaVA-" + (tiles ? "1.6" : "1.5") +
                      ", but the preprocessor configuration is of another image processor; " +
                      (tiles ? "LlavaNextImageProcessor, which makes tiles,"
                             : "CLIPImageProcessor or LlavaImageProcessor") +
                      " is expected");
  }
  if (tiles && *preprocessor.tile_sizes != model.anyres.sizes) {
    throw Failure(ErrorKind::kInvalidModel,
                  directory +
                      ": image_grid_pinpoints in the preprocessor configuration and in config.json "
                      "differ, where the same list is expected");
  }
  if (tiles && preprocessor.crop_height != model.vision.image_size) {
    throw Failure(ErrorKind::kInvalidModel,
                  directory + ": the preprocessor configuration cuts tiles of " +
                      std::to_string(preprocessor.crop_height) +
                      " pixels (crop_size), but vision_config.image_size asks for " +
                      std::to_string(model.vision.image_size));
  }
}

/// What to do about a tokenizer that knows nothing of pictures, or has them at another number.
std::string image_token_advice(const std::string& directory) {
  const std::string names = "tokenizer_config.json";
  if (file_exists(directory + "/" + names) || file_exists(directory + "/added_tokens.json")) {
    return "; its files are of another model, copy them from the checkpoint's source";
  }
  return "; " + names +
         ", which gives its number, is missing: copy it from the checkpoint's source";
}

void check_image_token(const ModelConfig& model, const Tokenizer& tokenizer,
                       const std::string& directory) {
  const auto image = tokenizer.id_of("<image>");
  if (!image || *image != model.image_token_id) {
    throw Failure(ErrorKind::kInvalidModel,
                  directory + ": the tokenizer has " +
                      (image ? "<image> as id " + std::to_string(*image) : "no token <image>") +
                      ", but image_token_index in config.json is " +
                      std::to_string(model.image_token_id) + image_token_advice(directory));
  }
}

void check_vocabulary(const ModelConfig& model, const Tokenizer& tokenizer,
                      const std::string& directory) {
  if (tokenizer.vocab_size() > model.text.vocab_size) {
    throw Failure(ErrorKind::kInvalidModel, directory + ": the tokenizer has ids up to " +
                                                std::to_string(tokenizer.vocab_size() - 1) +
                                                ", but text_config.vocab_size is " +
                                                std::to_string(model.text.vocab_size) +
                                                "; it belongs to another model");
  }
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> Checkpoint::open(const ModelSpec& spec) {
  return as_result([&]() -> std::shared_ptr<const Checkpoint> {
    const std::string directory = model_directory(spec);
    auto checkpoint = std::make_shared<Checkpoint>();
    checkpoint->path_ = spec.model;
    checkpoint->config_ = take(load_model_config(directory));
    if (checkpoint->config_.layout == Layout::kOriginal) {
      checkpoint->open_original_layout(spec, directory);
    } else {
      check_spec(spec);
      checkpoint->open_hugging_face_layout(directory);
    }
    if (checkpoint->config_.stored_dtype == DType::kAuto) {
      checkpoint->config_.stored_dtype =
          dtype_of(checkpoint->weights_->tensors().begin()->second.type);
    }
    return checkpoint;
  });
}

void Checkpoint::open_hugging_face_layout(const std::string& directory) {
  const bool tiles = !config_.anyres.sizes.empty();
  preprocessor_ = take(load_preprocessor_config(
      directory, tiles ? "LlavaNextImageProcessor" : "LlavaImageProcessor"));
  check_picture_size(config_, preprocessor_, directory);
  check_tiles(config_, preprocessor_, directory);
  generation_ = take(load_generation_config(directory));
  tokenizer_ = take(Tokenizer::load(directory));
  chat_template_ = find_chat_template(directory);
  check_image_token(config_, *tokenizer_, directory);
  check_vocabulary(config_, *tokenizer_, directory);
  add_weights(take(Weights::open(directory)), directory);
}

void Checkpoint::open_original_layout(const ModelSpec& spec, const std::string& directory) {
  OriginalParts parts = open_original(spec, directory, config_);
  preprocessor_ = parts.preprocessor;
  check_picture_size(config_, preprocessor_, directory);
  generation_ = take(load_generation_config(parts.text_directory));
  tokenizer_ = take(Tokenizer::load(parts.text_directory, original_tokenizer(config_)));
  chat_template_ = find_chat_template(parts.text_directory);
  check_original_vocabulary(config_, *tokenizer_, parts.text_directory);
  add_weights(std::move(parts.weights), directory);
}

void Checkpoint::add_weights(std::unique_ptr<Weights> weights, const std::string& directory) {
  take(verify_weights(config_, *weights, directory));
  tie_embeddings(config_, *weights);
  if (config_.layout == Layout::kOriginal) {
    cut_vocabulary(config_, tokenizer_->vocab_size(), *weights);
  }
  weights_ = std::move(weights);
}

std::string Checkpoint::name() const {
  std::error_code error;
  auto path = std::filesystem::absolute(path_, error).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  if (error || path.filename().empty()) return path_;
  std::string name = path.filename().string();
  // A step of a training is called after the training as well, as the original does it.
  const std::string parent = path.parent_path().filename().string();
  const bool step = config_.layout == Layout::kOriginal && name.starts_with("checkpoint-");
  return step && !parent.empty() ? parent + "_" + name : name;
}

}  // namespace vlm
