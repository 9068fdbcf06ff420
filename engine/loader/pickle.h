// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

/// One tensor of a pickled state dict: a view of one of the archive's storages. Nothing about it is
/// checked but that the numbers are there.
struct PickledTensor {
  std::string name;
  std::string dtype;     ///< as safetensors files write it: F32, BF16, I64 …
  std::string storage;   ///< the storage's key
  int64_t elements = 0;  ///< that the storage is said to have
  int64_t offset = 0;    ///< of the first element in the storage, elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  ///< as many as sides
};

/// Reads an untrusted pickle as a state dict: names and tensors, nothing else. It is interpreted by
/// rules of our own that know what torch.save writes for such a dict and nothing more: no Python
/// name can be called, time and memory grow with the pickle's size alone. Throws Failure naming
/// `file` and what was found. Reentrant.
std::vector<PickledTensor> read_state_dict(std::string_view pickle, const std::string& file);

}  // namespace vlm
