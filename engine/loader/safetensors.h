// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vlm {

/// One entry of a safetensors header.
struct SafetensorsEntry {
  std::string name;   ///< as the file spells it
  std::string dtype;  ///< F32, BF16, I64 …
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;  ///< shape × dtype, checked
};

/// A file whose header was checked: every tensor lies inside the file, none overlaps another, none
/// leaves a gap, and sizes agree with shapes. Constant; reentrant.
struct SafetensorsFile {
  std::string path;
  std::vector<SafetensorsEntry> entries;  ///< in the order of their data
  std::shared_ptr<const void> mapping;    ///< keeps `data` of every entry valid
};

/// Maps an untrusted file without reading its tensors. Throws Failure naming file, tensor, what was
/// expected and found.
SafetensorsFile map_safetensors(const std::string& path);

}  // namespace vlm
