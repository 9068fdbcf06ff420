// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/weights.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <new>
#include <set>
#include <utility>

#include "base/json.h"
#include "loader/safetensors.h"
#include "loader/torch_file.h"

namespace vlm {
namespace {

/// Names that a directory's weights go by, the preferred ones first.
struct FileNames {
  const char* single;
  const char* index;
};
constexpr FileNames kFileNames[] = {{"model.safetensors", "model.safetensors.index.json"},
                                    {"pytorch_model.bin", "pytorch_model.bin.index.json"}};

bool replace_prefix(std::string& name, std::string_view from, std::string_view to) {
  if (!name.starts_with(from)) return false;
  name.replace(0, from.size(), to);
  return true;
}

/// Tables that the network computes itself.
bool is_ignored(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("embeddings.position_ids");
}

StoredType stored_type(const TensorFile& file, const TensorEntry& entry) {
  if (entry.dtype == "F32") return StoredType::kFloat32;
  if (entry.dtype == "F16") return StoredType::kFloat16;
  if (entry.dtype == "BF16") return StoredType::kBFloat16;
  throw Failure(ErrorKind::kUnsupported, file.path + ": tensor " + entry.name + " is stored as " +
                                             entry.dtype + ", but F32, F16 and BF16 are supported");
}

/// An aligned copy, for files whose header has an odd length.
std::pair<const std::byte*, std::shared_ptr<const void>> aligned_copy(const std::byte* data,
                                                                      size_t bytes) {
  void* copy = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!copy) throw std::bad_alloc();
  std::memcpy(copy, data, bytes);
  return {static_cast<const std::byte*>(copy), std::shared_ptr<const void>(copy, std::free)};
}

StoredTensor stored_tensor(const TensorFile& file, const TensorEntry& entry) {
  StoredTensor tensor;
  tensor.type = stored_type(file, entry);
  tensor.shape = entry.shape;
  tensor.bytes = entry.bytes;
  tensor.file = file.path;
  tensor.spelling = entry.name;
  const size_t element = tensor.type == StoredType::kFloat32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(entry.data) % element == 0) {
    tensor.data = entry.data;
    tensor.owner = file.owner;
    tensor.mapping = file.mapping;
  } else {
    std::tie(tensor.data, tensor.owner) = aligned_copy(entry.data, entry.bytes);
  }
  return tensor;
}

TensorFile map_tensors(const std::string& path) {
  return path.ends_with(".safetensors") ? map_safetensors(path) : map_torch_file(path);
}

/// File names of the shards, and which tensors each must hold.
std::map<std::string, std::vector<std::string>> read_index(const std::string& path) {
  const Json json = read_json_file(path);
  const auto map = JsonView(json, path).object("weight_map");
  if (!map) JsonView(json, path).refuse("weight_map", "a table of tensors and files is expected");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, file] : map->json().items()) {
    const std::string name = map->string(tensor, "");
    if (name.empty() || name.starts_with(".") || name.find('/') != std::string::npos) {
      map->refuse(tensor, "the name of a file beside the index is expected");
    }
    shards[name].push_back(tensor);
  }
  return shards;
}

/// Refuses a checkpoint that lacks files of its index.
void check_files(const std::string& directory, const std::string& index,
                 const std::map<std::string, std::vector<std::string>>& shards) {
  std::vector<std::string> absent;
  for (const auto& [name, listed] : shards) {
    if (!file_exists(directory + "/" + name)) absent.push_back(name);
  }
  if (absent.empty()) return;
  const std::string others =
      absent.size() == 1 ? "" : " with " + std::to_string(absent.size() - 1) + " more of its files";
  throw Failure(ErrorKind::kNotFound,
                directory + "/" + absent.front() + ": is missing" + others + ", though " + index +
                    " places tensors in it; fetch what is missing from the checkpoint's source");
}

void check_shard(const TensorFile& file, const std::vector<std::string>& listed,
                 const std::string& index) {
  std::set<std::string_view> held;
  for (const TensorEntry& entry : file.entries) held.insert(entry.name);
  for (const std::string& name : listed) {
    if (!held.contains(name)) {
      throw Failure(ErrorKind::kInvalidModel, file.path + ": tensor " + shown_name(name) +
                                                  " is missing, though " + index +
                                                  " places it there");
    }
  }
}

/// `model.mm_projector.2.weight` → `multi_modal_projector.linear_2.weight`: every other module of
/// the original's sequence is an activation. Another name stays as it is.
std::string projector_name(const std::string& name) {
  constexpr std::string_view kPrefix = "model.mm_projector.";
  std::string_view rest = std::string_view(name).substr(kPrefix.size());
  int64_t module = 0;
  if (rest != "weight" && rest != "bias") {
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), module);
    if (error != std::errc() || module < 0 || module % 2 != 0 || module > 1000) return name;
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    if (rest != ".weight" && rest != ".bias") return name;
    rest.remove_prefix(1);
  }
  return "multi_modal_projector.linear_" + std::to_string(module / 2 + 1) + "." + std::string(rest);
}

}  // namespace

std::string canonical_name(std::string_view spelling) {
  std::string name(spelling);
  if (replace_prefix(name, "lm_head.", "language_model.lm_head.")) return name;
  if (replace_prefix(name, "model.language_model.", "language_model.model.")) return name;
  for (const char* part : {"embed_tokens.", "layers.", "norm."}) {
    const std::string bare = std::string("model.") + part;
    if (replace_prefix(name, bare, "language_model." + bare)) return name;
  }
  if (name.starts_with("model.mm_projector.")) return projector_name(name);
  for (const char* part : {"vision_tower.", "multi_modal_projector.", "image_newline"}) {
    if (replace_prefix(name, std::string("model.") + part, part)) break;
  }
  replace_prefix(name, "vision_tower.vision_tower.", "vision_tower.");
  if (name.starts_with("vision_tower.") && !name.starts_with("vision_tower.vision_model.")) {
    replace_prefix(name, "vision_tower.", "vision_tower.vision_model.");
  }
  return name;
}

std::string tower_name(std::string_view spelling) {
  for (const char* other : {"text_model.", "logit_scale", "text_projection", "visual_projection"}) {
    if (spelling.starts_with(other)) return {};
  }
  for (const char* part :
       {"vision_model.", "embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm."}) {
    if (spelling.starts_with(part)) return canonical_name("vision_tower." + std::string(spelling));
  }
  return canonical_name(spelling);
}

bool has_weights(const std::string& directory) {
  for (const FileNames& names : kFileNames) {
    if (file_exists(directory + "/" + names.single)) return true;
    if (file_exists(directory + "/" + names.index)) return true;
  }
  return false;
}

Result<std::unique_ptr<Weights>> Weights::open(const std::string& directory) {
  return as_result([&] {
    auto weights = std::make_unique<Weights>();
    weights->add_directory(directory, canonical_name);
    return weights;
  });
}

void Weights::add_directory(const std::string& directory, Renaming rename) {
  for (const FileNames& names : kFileNames) {
    const std::string single = directory + "/" + names.single;
    const std::string index = directory + "/" + names.index;
    if (file_exists(single)) return add_file(single, rename);
    if (!file_exists(index)) continue;
    const auto shards = read_index(index);
    check_files(directory, index, shards);
    for (const auto& [name, listed] : shards) {
      const TensorFile shard = map_tensors(directory + "/" + name);
      check_shard(shard, listed, index);
      add(shard, rename);
    }
    return;
  }
  std::string all;
  for (const FileNames& names : kFileNames) {
    all += (all.empty() ? "neither " : ", ") + std::string(names.single) + ", " + names.index;
  }
  throw Failure(ErrorKind::kNotFound,
                directory + ": holds no weights: " + all + " is there; fetch the checkpoint again");
}

void Weights::add_file(const std::string& path, Renaming rename) {
  add(map_tensors(path), rename);
}

void Weights::add(const TensorFile& file, Renaming rename) {
  for (const TensorEntry& entry : file.entries) {
    if (is_ignored(entry.name)) continue;
    if (const std::string shown = shown_name(entry.name); shown != entry.name) {
      throw Failure(ErrorKind::kInvalidModel,
                    file.path + ": tensor " + shown + " has a name that no model's has");
    }
    std::string name = rename(entry.name);
    if (name.empty()) continue;
    const auto [place, fresh] = tensors_.emplace(std::move(name), stored_tensor(file, entry));
    if (!fresh) {
      throw Failure(ErrorKind::kInvalidModel, file.path + ": tensor " + entry.name +
                                                  " is stored twice, before as " +
                                                  place->second.spelling + " in " +
                                                  place->second.file + "; remove one of them");
    }
  }
}

void Weights::replace_by(const Weights& other) {
  for (const auto& [name, tensor] : other.tensors_) tensors_.insert_or_assign(name, tensor);
}

void Weights::remove(std::string_view prefix) {
  std::erase_if(tensors_, [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

void Weights::cut_rows(std::string_view name, int64_t rows) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return;
  StoredTensor& tensor = found->second;
  if (tensor.shape.empty() || tensor.shape[0] <= rows) return;
  tensor.bytes = tensor.bytes / static_cast<size_t>(tensor.shape[0]) * static_cast<size_t>(rows);
  tensor.shape[0] = rows;
}

void Weights::set_lora(const std::string& name, std::shared_ptr<const LoraFactors> lora) {
  tensors_.at(name).lora = std::move(lora);
}

const StoredTensor* Weights::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

void Weights::alias(std::string_view name, std::string_view target) {
  const auto found = tensors_.find(target);
  if (found != tensors_.end()) tensors_.emplace(std::string(name), StoredTensor(found->second));
}

}  // namespace vlm
