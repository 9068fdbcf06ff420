// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "loader/tensor_file.h"
#include "vlm/error.h"

namespace vlm {

enum class StoredType { kFloat32, kFloat16, kBFloat16 };

struct LoraFactors;

/// A tensor as it lies in a mapped file. `data` stays valid while `owner` does; row-major,
/// little-endian, aligned to its element.
struct StoredTensor {
  StoredType type = StoredType::kFloat32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::string file;                           ///< for messages
  std::string spelling;                       ///< name in that file, for messages
  std::shared_ptr<const void> owner;          ///< the mapping, or a copy
  std::shared_ptr<const MappedFile> mapping;  ///< null for a copy
  std::shared_ptr<const LoraFactors> lora;    ///< added to it when it is loaded; usually none
};

/// What a low-rank adapter adds to a matrix [out, in]: scale · up · down.
struct LoraFactors {
  StoredTensor down;  ///< lora_A, [rank, in]
  StoredTensor up;    ///< lora_B, [out, rank]
  double scale = 1;
};

/// A tensor's name in a checkpoint from its spelling in a file; empty: nothing reads it.
using Renaming = std::string (*)(std::string_view spelling);

/// The canonical form of a tensor's name in any of the layouts' spellings. Reentrant.
std::string canonical_name(std::string_view spelling);

/// The same in the file of a vision tower alone, whose text half is left out. Reentrant.
std::string tower_name(std::string_view spelling);

/// Whether `directory` holds weights under one of their usual names. Reentrant.
bool has_weights(const std::string& directory);

/// All tensors of a checkpoint by canonical name, whichever spelling the files use. Canonical
/// names: `language_model.model.…`, `language_model.lm_head.weight`, `vision_tower.vision_model.…`,
/// `multi_modal_projector.linear_{1,2,…}.{weight,bias}`, `image_newline`. Constant once it is put
/// together; reentrant then. Members that read files throw Failure.
class Weights {
 public:
  /// Maps model.safetensors or pytorch_model.bin, or the shards that one's index lists.
  static Result<std::unique_ptr<Weights>> open(const std::string& directory);

  /// Adds what open() maps, or the one file `path`. A name that is there already is an error.
  void add_directory(const std::string& directory, Renaming rename);
  void add_file(const std::string& path, Renaming rename);
  /// Takes over the tensors of `other` in place of those of the same name.
  void replace_by(const Weights& other);
  /// Forgets the tensors whose names begin so.
  void remove(std::string_view prefix);
  /// Leaves the tensor its first `rows` rows, where it has more.
  void cut_rows(std::string_view name, int64_t rows);
  /// Puts an adapter on a tensor that is there.
  void set_lora(const std::string& name, std::shared_ptr<const LoraFactors> lora);

  /// Lets `name` stand for the tensor `target` as well, where that one is there and `name` is not.
  void alias(std::string_view name, std::string_view target);

  /// Null where the checkpoint has no such tensor.
  const StoredTensor* find(std::string_view name) const;

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }

 private:
  void add(const TensorFile& file, Renaming rename);

  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

}  // namespace vlm
