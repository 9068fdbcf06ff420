// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/original.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/json.h"
#include "loader/hub.h"
#include "loader/lora.h"

namespace vlm {
namespace {

constexpr const char* kProjectorFile = "mm_projector.bin";
constexpr const char* kPatchToken = "<im_patch>";
constexpr const char* kTower = "vision_tower.";

template <typename T>
T take(Result<T> result) {
  if (!result) throw Failure(result.error());
  return std::move(*result);
}

bool is_directory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

/// The directory beside `directory` that is called as the last part of `name`.
std::string sibling(const std::string& directory, const std::string& name) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path path = fs::absolute(directory, error).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  return (path.parent_path() / fs::path(name).filename()).string();
}

/// Where the tower is that config.json names, if it is anywhere.
std::optional<std::string> find_tower(const ModelSpec& spec, const std::string& directory,
                                      const ModelConfig& config) {
  if (!spec.vision_tower.empty()) return find_directory(spec.vision_tower, "vision tower");
  const std::string& name = config.vision_tower;
  if (is_directory(name)) return name;
  if (auto cached = find_in_hub_cache(name)) return cached;
  const std::string beside = sibling(directory, name);
  return file_exists(beside + "/config.json") ? std::optional(beside) : std::nullopt;
}

/// Shape of the towers that checkpoints holding their own were trained with, for those whose
/// directory is not at hand.
std::optional<VisionConfig> known_tower(const std::string& name) {
  const bool large = name == "openai/clip-vit-large-patch14-336";
  if (!large && name != "openai/clip-vit-large-patch14") return std::nullopt;
  VisionConfig config;
  config.hidden_size = 1024;
  config.intermediate_size = 4096;
  config.layers = 24;
  config.heads = 16;
  config.image_size = large ? 336 : 224;
  config.patch_size = 14;
  return config;
}

[[noreturn]] void no_tower(const std::string& directory, const ModelConfig& config) {
  std::string advice = "give its directory with --vision-tower DIR or the property vision-tower";
  if (is_hub_id(config.vision_tower)) advice += ", or " + fetch_advice(config.vision_tower);
  throw Failure(ErrorKind::kNotFound, directory + "/config.json: mm_vision_tower is " +
                                          json_excerpt(config.vision_tower) +
                                          ", which is neither a directory nor in " + hub_cache() +
                                          " nor beside the checkpoint; " + advice);
}

bool holds_tower(const Weights& weights) {
  const auto first = weights.tensors().lower_bound(kTower);
  return first != weights.tensors().end() && first->first.starts_with(kTower);
}

/// Completes configuration and weights with the tower.
PreprocessorConfig add_tower(const ModelSpec& spec, const std::string& directory,
                             ModelConfig& config, Weights& weights) {
  const std::optional<std::string> tower = find_tower(spec, directory, config);
  const std::string file = directory + "/config.json";
  if (!tower) {
    const auto known = holds_tower(weights) ? known_tower(config.vision_tower) : std::nullopt;
    if (!known) no_tower(directory, config);
    take(set_tower(config, *known, file));
    PreprocessorConfig preprocessor;
    preprocessor.shortest_edge = known->image_size;
    preprocessor.crop_height = preprocessor.crop_width = known->image_size;
    return preprocessor;
  }
  take(set_tower(config, take(load_vision_config(*tower)), file));
  if (!spec.vision_tower.empty()) weights.remove(kTower);
  if (!holds_tower(weights)) weights.add_directory(*tower, tower_name);
  return take(load_preprocessor_config(*tower, "CLIPImageProcessor"));
}

[[noreturn]] void needs_base(const std::string& directory, const std::string& holding) {
  throw Failure(ErrorKind::kNotFound,
                directory + ": holds only " + holding +
                    "; give the directory of the model that it was trained on with --model-base "
                    "DIR or the property model-base");
}

/// The weights of a checkpoint that is whole, or of its base with what the checkpoint changes.
std::unique_ptr<Weights> open_weights(const std::string& directory, const std::string& base) {
  auto weights = std::make_unique<Weights>();
  const bool lora = has_lora(directory);
  const bool projector = file_exists(directory + "/" + kProjectorFile);
  if (base.empty()) {
    if (lora) needs_base(directory, "a LoRA adapter");
    if (projector && !has_weights(directory)) needs_base(directory, "a projector");
    weights->add_directory(directory, canonical_name);
    return weights;
  }
  if (!lora && !projector) {
    throw Failure(ErrorKind::kInvalidArgument,
                  directory + ": holds neither a LoRA adapter (adapter_config.json) nor " +
                      kProjectorFile + ", so it takes no model base; name its directory alone");
  }
  weights->add_directory(base, canonical_name);
  if (lora) {
    apply_lora(directory, *weights);
  } else {
    Weights trained;
    trained.add_file(directory + "/" + kProjectorFile, canonical_name);
    weights->replace_by(trained);
  }
  return weights;
}

}  // namespace

std::string find_directory(const std::string& name, const std::string& what) {
  struct stat info;
  const bool there = ::stat(name.c_str(), &info) == 0;
  const int error = errno;
  if (there && S_ISDIR(info.st_mode)) return name;
  if (there) {
    throw Failure(ErrorKind::kNotFound,
                  name + ": is no directory; give the " + what + "'s directory, not a file");
  }
  if (auto cached = find_in_hub_cache(name)) return *cached;
  const std::string advice =
      is_hub_id(name) ? "; if it is a hub id, " + fetch_advice(name) : "; give the path of one";
  throw Failure(ErrorKind::kNotFound,
                name + ": no such " + what + " directory: " + std::strerror(error) + advice);
}

TokenizerOptions original_tokenizer(const ModelConfig& config) {
  TokenizerOptions options;
  options.reader = config.original_mistral ? TokenizerReader::kFast4 : TokenizerReader::kSlow4;
  if (config.image_patch_token) options.extra.push_back(kPatchToken);
  if (config.image_start_end) {
    options.extra.insert(options.extra.end(), {"<im_start>", "<im_end>"});
  }
  return options;
}

void check_original_vocabulary(const ModelConfig& config, const Tokenizer& tokenizer,
                               const std::string& directory) {
  const int64_t rows = config.text.vocab_size;
  const bool patch_alone = config.image_patch_token && tokenizer.vocab_size() == rows + 1 &&
                           tokenizer.id_of(kPatchToken) == rows;
  if (tokenizer.vocab_size() <= rows || patch_alone) return;
  throw Failure(ErrorKind::kInvalidModel,
                directory + ": the tokenizer has ids up to " +
                    std::to_string(tokenizer.vocab_size() - 1) +
                    ", with those of mm_use_im_start_end and mm_use_im_patch_token, but "
                    "vocab_size in config.json is " +
                    std::to_string(rows) + "; it belongs to another model");
}

void cut_vocabulary(ModelConfig& config, int64_t tokens, Weights& weights) {
  if (tokens >= config.text.vocab_size) return;
  config.text.vocab_size = tokens;
  for (const char* name :
       {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}) {
    weights.cut_rows(name, tokens);
  }
}

OriginalParts open_original(const ModelSpec& spec, const std::string& directory,
                            ModelConfig& config) {
  OriginalParts parts;
  const std::string base =
      spec.model_base.empty() ? "" : find_directory(spec.model_base, "model base");
  parts.text_directory = base.empty() ? directory : base;
  parts.weights = open_weights(directory, base);
  parts.preprocessor = add_tower(spec, directory, config, *parts.weights);
  return parts;
}

}  // namespace vlm
