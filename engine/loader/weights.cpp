// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/weights.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <set>
#include <utility>

#include "base/json.h"
#include "loader/safetensors.h"

namespace vlm {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

bool replace_prefix(std::string& name, std::string_view from, std::string_view to) {
  if (!name.starts_with(from)) return false;
  name.replace(0, from.size(), to);
  return true;
}

/// Tables that the network computes itself.
bool is_ignored(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("embeddings.position_ids");
}

StoredType stored_type(const SafetensorsFile& file, const SafetensorsEntry& entry) {
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

StoredTensor stored_tensor(const SafetensorsFile& file, const SafetensorsEntry& entry) {
  StoredTensor tensor;
  tensor.type = stored_type(file, entry);
  tensor.shape = entry.shape;
  tensor.bytes = entry.bytes;
  tensor.file = file.path;
  tensor.spelling = entry.name;
  const size_t element = tensor.type == StoredType::kFloat32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(entry.data) % element == 0) {
    tensor.data = entry.data;
    tensor.owner = file.mapping;
  } else {
    std::tie(tensor.data, tensor.owner) = aligned_copy(entry.data, entry.bytes);
  }
  return tensor;
}

using TensorMap = std::map<std::string, StoredTensor, std::less<>>;

void add_file(TensorMap& tensors, const SafetensorsFile& file) {
  for (const SafetensorsEntry& entry : file.entries) {
    if (is_ignored(entry.name)) continue;
    const auto [place, fresh] =
        tensors.emplace(canonical_name(entry.name), stored_tensor(file, entry));
    if (!fresh) {
      throw Failure(ErrorKind::kInvalidModel, file.path + ": tensor " + entry.name +
                                                  " is stored twice, before as " +
                                                  place->second.spelling + " in " +
                                                  place->second.file + "; remove one of them");
    }
  }
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

void check_shard(const SafetensorsFile& file, const std::vector<std::string>& listed,
                 const std::string& index) {
  std::set<std::string_view> held;
  for (const SafetensorsEntry& entry : file.entries) held.insert(entry.name);
  for (const std::string& name : listed) {
    if (!held.contains(name)) {
      throw Failure(
          ErrorKind::kInvalidModel,
          file.path + ": tensor " + name + " is missing, though " + index + " places it there");
    }
  }
}

[[noreturn]] void no_weights(const std::string& directory) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (file_exists(directory + "/" + name)) {
      throw Failure(ErrorKind::kUnsupported,
                    directory + ": holds its weights as " + name +
                        ", but safetensors are supported; convert the checkpoint");
    }
  }
  throw Failure(ErrorKind::kNotFound, directory + ": holds no weights: neither " + kSingleFile +
                                          " nor " + kIndexFile + " is there");
}

}  // namespace

std::string canonical_name(std::string_view spelling) {
  std::string name(spelling);
  if (replace_prefix(name, "lm_head.", "language_model.lm_head.")) return name;
  if (replace_prefix(name, "model.language_model.", "language_model.model.")) return name;
  for (const char* part : {"vision_tower.", "multi_modal_projector.", "image_newline"}) {
    if (replace_prefix(name, std::string("model.") + part, part)) break;
  }
  if (name.starts_with("vision_tower.") && !name.starts_with("vision_tower.vision_model.")) {
    replace_prefix(name, "vision_tower.", "vision_tower.vision_model.");
  }
  return name;
}

Result<std::unique_ptr<Weights>> Weights::open(const std::string& directory) {
  return as_result([&] {
    auto weights = std::make_unique<Weights>();
    const std::string single = directory + "/" + kSingleFile;
    const std::string index = directory + "/" + kIndexFile;
    if (file_exists(single)) {
      add_file(weights->tensors_, map_safetensors(single));
    } else if (file_exists(index)) {
      for (const auto& [name, listed] : read_index(index)) {
        const SafetensorsFile shard = map_safetensors(directory + "/" + name);
        check_shard(shard, listed, index);
        add_file(weights->tensors_, shard);
      }
    } else {
      no_weights(directory);
    }
    return weights;
  });
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
