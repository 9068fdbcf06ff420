// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

/// A whole file, mapped read-only; unmapped with its last owner. Constant; reentrant.
class MappedFile {
 public:
  /// Throws Failure (kNotFound), naming the file, where it cannot be mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  /// Takes the pages that lie wholly in these bytes off this process, which has read them and will
  /// hardly do so again: they stay in the system's cache and come back when read. Bytes outside of
  /// the file are left alone.
  void let_go(const std::byte* begin, size_t bytes) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// One tensor of a file, row-major, little-endian.
struct TensorEntry {
  std::string name;   ///< as the file spells it
  std::string dtype;  ///< as safetensors files write it: F32, BF16, I64 …
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  ///< aligned to nothing in particular
  size_t bytes = 0;                 ///< shape × dtype, checked
};

/// A file of tensors whose structure was checked: every tensor lies inside of it, and sizes agree
/// with shapes. Constant; reentrant.
struct TensorFile {
  std::string path;
  std::vector<TensorEntry> entries;
  std::shared_ptr<const void> owner;          ///< keeps `data` of every entry valid
  std::shared_ptr<const MappedFile> mapping;  ///< where most of it lies
};

/// A name out of a file as messages show it: printable and shortened. Names of models' tensors come
/// out as they are. Reentrant.
std::string shown_name(std::string_view name);

/// Bits that one element of the type `dtype` takes, or 0 where there is no such type.
uint64_t element_bits(const std::string& dtype);

}  // namespace vlm
