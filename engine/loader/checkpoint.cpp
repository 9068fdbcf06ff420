// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/json.h"
#include "loader/manifest.h"
#include "text/token_settings.h"

namespace vlm {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

template <typename T>
T take(Result<T> result) {
  if (!result) throw Failure(result.error());
  return std::move(*result);
}

void check_spec(const ModelSpec& spec) {
  if (spec.model.empty()) {
    throw Failure(ErrorKind::kInvalidArgument, "no model was named; give the directory of one");
  }
  struct stat info;
  if (::stat(spec.model.c_str(), &info) != 0) {
    throw Failure(ErrorKind::kNotFound, spec.model + ": no such model directory: " +
                                            std::strerror(errno) + "; give the path of one");
  }
  if (!S_ISDIR(info.st_mode)) {
    throw Failure(ErrorKind::kNotFound,
                  spec.model + ": is no directory; give the checkpoint's directory, not a file");
  }
  if (!spec.vision_tower.empty() || !spec.model_base.empty()) {
    const char* option = spec.vision_tower.empty() ? "model base" : "vision tower";
    throw Failure(ErrorKind::kUnsupported,
                  std::string("a separate ") + option +
                      " belongs to checkpoints in the original layout, which are not supported; "
                      "use one in the Hugging Face layout and name its directory alone");
  }
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

void check_tokens(const ModelConfig& model, const Tokenizer& tokenizer,
                  const std::string& directory) {
  const auto image = tokenizer.id_of("<image>");
  if (!image || *image != model.image_token_id) {
    throw Failure(ErrorKind::kInvalidModel,
                  directory + ": the tokenizer has " +
                      (image ? "<image> as id " + std::to_string(*image) : "no token <image>") +
                      ", but image_token_index in config.json is " +
                      std::to_string(model.image_token_id));
  }
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
    check_spec(spec);
    auto checkpoint = std::make_shared<Checkpoint>();
    const std::string& directory = spec.model;
    checkpoint->path_ = directory;
    checkpoint->config_ = take(load_model_config(directory));
    const bool tiles = !checkpoint->config_.anyres.sizes.empty();
    checkpoint->preprocessor_ = take(load_preprocessor_config(
        directory, tiles ? "LlavaNextImageProcessor" : "LlavaImageProcessor"));
    checkpoint->generation_ = take(load_generation_config(directory));
    checkpoint->tokenizer_ = take(Tokenizer::load(directory));
    checkpoint->chat_template_ = find_chat_template(directory);
    check_picture_size(checkpoint->config_, checkpoint->preprocessor_, directory);
    check_tiles(checkpoint->config_, checkpoint->preprocessor_, directory);
    check_tokens(checkpoint->config_, *checkpoint->tokenizer_, directory);

    auto weights = take(Weights::open(directory));
    take(verify_weights(checkpoint->config_, *weights, directory));
    tie_embeddings(checkpoint->config_, *weights);
    if (checkpoint->config_.stored_dtype == DType::kAuto) {
      checkpoint->config_.stored_dtype = dtype_of(weights->tensors().begin()->second.type);
    }
    checkpoint->weights_ = std::move(weights);
    return checkpoint;
  });
}

std::string Checkpoint::name() const {
  std::error_code error;
  auto path = std::filesystem::absolute(path_, error).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  return error || path.filename().empty() ? path_ : path.filename().string();
}

}  // namespace vlm
