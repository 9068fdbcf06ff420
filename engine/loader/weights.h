// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/error.h"

namespace vlm {

enum class StoredType { kFloat32, kFloat16, kBFloat16 };

/// A tensor as it lies in a mapped file. `data` stays valid while `owner` does; row-major,
/// little-endian, aligned to its element.
struct StoredTensor {
  StoredType type = StoredType::kFloat32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  std::string file;                   ///< for messages
  std::string spelling;               ///< name in that file, for messages
  std::shared_ptr<const void> owner;  ///< the mapping
};

/// The canonical form of a tensor's name in any of the layouts' spellings. Reentrant.
std::string canonical_name(std::string_view spelling);

/// All tensors of a checkpoint by canonical name, whichever spelling the files use. Canonical
/// names: `language_model.model.…`, `language_model.lm_head.weight`, `vision_tower.vision_model.…`,
/// `multi_modal_projector.linear_{1,2}.{weight,bias}`. Constant after open; reentrant.
class Weights {
 public:
  /// Maps model.safetensors, or the shards that model.safetensors.index.json lists.
  static Result<std::unique_ptr<Weights>> open(const std::string& directory);

  /// Lets `name` stand for the tensor `target` as well, where that one is there and `name` is not.
  void alias(std::string_view name, std::string_view target);

  /// Null where the checkpoint has no such tensor.
  const StoredTensor* find(std::string_view name) const;

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }

 private:
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

}  // namespace vlm
