// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/torch_file.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "base/failure.h"
#include "base/json.h"
#include "loader/pickle.h"
#include "loader/zip.h"

namespace vlm {
namespace {

constexpr size_t kMaxPickle = size_t{1} << 24;  // a thousand times what a large model's takes
constexpr std::string_view kPickle = "/data.pkl";

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Failure(ErrorKind::kInvalidModel, path + ": " + what);
}

/// What keeps the tensors' data: the mapping, and copies of those that are not contiguous.
struct Owner {
  explicit Owner(const std::string& path) : file(path) {}

  MappedFile file;
  std::vector<std::unique_ptr<std::byte[]>> copies;
};

/// Says what a file is that is no archive.
void check_beginning(const MappedFile& file, const std::string& path) {
  const std::string_view start(reinterpret_cast<const char*>(file.data()),
                               std::min<size_t>(file.size(), 64));
  constexpr std::string_view kOldMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
                                       14);
  if (start.starts_with(kOldMagic)) {
    throw Failure(ErrorKind::kUnsupported,
                  path +
                      ": was saved in the format of torch before 1.6; load it with torch.load "
                      "and save it again with torch.save");
  }
  refuse_pointer(path, start);
  if (!start.starts_with("PK\x03\x04")) fail(path, "is no file of torch.save");
}

class TorchFile {
 public:
  explicit TorchFile(const std::string& path) : path_(path), owner_(std::make_shared<Owner>(path)) {
    check_beginning(owner_->file, path);
    records_ = read_zip(owner_->file, path);
  }

  TensorFile read() {
    const ZipRecord& pickle = find_pickle();
    const ZipRecord* order = find("byteorder");
    if (order && text_of(*order) != "little") {
      fail(path_, "its tensors are not little-endian; save it on a machine of this kind");
    }
    TensorFile file{path_, {}, owner_, {owner_, &owner_->file}};
    for (PickledTensor& tensor : read_state_dict(text_of(pickle), path_)) {
      file.entries.push_back(entry(std::move(tensor)));
    }
    return file;
  }

 private:
  static std::string_view text_of(const ZipRecord& record) {
    return {reinterpret_cast<const char*>(record.data), record.bytes};
  }

  const ZipRecord* find(const std::string& name) const {
    const auto found = records_.find(prefix_ + name);
    return found == records_.end() ? nullptr : &found->second;
  }

  /// The pickle lies in a folder that all records share.
  const ZipRecord& find_pickle() {
    for (const auto& [name, record] : records_) {
      if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
      prefix_ = name.substr(0, name.size() - kPickle.size() + 1);
      if (record.bytes > kMaxPickle) fail(path_, "its pickle is larger than that of any model");
      if (!checksum_holds(record)) fail(path_, "its pickle is damaged; fetch the file again");
      return record;
    }
    fail(path_, "is an archive without data.pkl, so no file of torch.save");
  }

  [[noreturn]] void refuse(const PickledTensor& tensor, const std::string& what) const {
    fail(path_, "tensor " + shown_name(tensor.name) + " " + what);
  }

  TensorEntry entry(PickledTensor tensor) {
    const ZipRecord* record = find("data/" + tensor.storage);
    if (!record)
      refuse(tensor, "needs the storage " + shown_name(tensor.storage) + ", which is not there");
    const uint64_t size = element_bits(tensor.dtype) / 8;
    uint64_t storage_bytes = 0;
    if (tensor.elements < 0 ||
        __builtin_mul_overflow(static_cast<uint64_t>(tensor.elements), size, &storage_bytes) ||
        storage_bytes != record->bytes) {
      refuse(tensor, "needs a storage of " + std::to_string(tensor.elements) + " elements of " +
                         tensor.dtype + ", but that has " + std::to_string(record->bytes) +
                         " bytes");
    }
    const uint64_t count = check_extent(tensor);
    TensorEntry result{tensor.name, tensor.dtype, tensor.shape, record->data, count * size};
    if (count == 0) return result;
    result.data += static_cast<uint64_t>(tensor.offset) * size;
    if (!is_contiguous(tensor)) result.data = gathered(tensor, result.data, count, size);
    return result;
  }

  /// Number of elements, all of which lie in the storage.
  uint64_t check_extent(const PickledTensor& tensor) const {
    int64_t count = 1, last = tensor.offset;
    bool good = tensor.offset >= 0;
    for (size_t i = 0; i < tensor.shape.size() && good; ++i) {
      const int64_t side = tensor.shape[i], stride = tensor.strides[i];
      int64_t reach = 0;
      good = side >= 0 && stride >= 0 && !__builtin_mul_overflow(count, side, &count) &&
             !__builtin_mul_overflow(side > 0 ? side - 1 : 0, stride, &reach) &&
             !__builtin_add_overflow(last, reach, &last);
    }
    // One with more elements than its storage repeats some of them.
    if (!good || (count > 0 && last >= tensor.elements) || count > tensor.elements) {
      refuse(tensor, "leaves its storage of " + std::to_string(tensor.elements) +
                         " elements, or repeats parts of it");
    }
    return static_cast<uint64_t>(count);
  }

  static bool is_contiguous(const PickledTensor& tensor) {
    int64_t expected = 1;
    for (size_t i = tensor.shape.size(); i > 0; --i) {
      if (tensor.shape[i - 1] != 1 && tensor.strides[i - 1] != expected) return false;
      expected *= tensor.shape[i - 1];
    }
    return true;
  }

  /// Row-major copy of a tensor whose first element is at `first`.
  const std::byte* gathered(const PickledTensor& tensor, const std::byte* first, uint64_t count,
                            uint64_t size) {
    // Two tensors may share a storage; without a bound a small pickle could ask for any number.
    copied_ += count * size;
    if (copied_ / 2 > owner_->file.size()) refuse(tensor, "is one of too many in another order");
    auto copy = std::make_unique<std::byte[]>(count * size);
    std::vector<int64_t> index(tensor.shape.size(), 0);
    int64_t at = 0;
    for (uint64_t i = 0; i < count; ++i) {
      std::memcpy(copy.get() + i * size, first + static_cast<uint64_t>(at) * size, size);
      for (size_t axis = index.size(); axis > 0; --axis) {
        at += tensor.strides[axis - 1];
        if (++index[axis - 1] < tensor.shape[axis - 1]) break;
        at -= tensor.strides[axis - 1] * tensor.shape[axis - 1];
        index[axis - 1] = 0;
      }
    }
    owner_->copies.push_back(std::move(copy));
    return owner_->copies.back().get();
  }

  const std::string& path_;
  std::shared_ptr<Owner> owner_;
  std::map<std::string, ZipRecord, std::less<>> records_;
  std::string prefix_;   ///< the folder in the archive, with its slash
  uint64_t copied_ = 0;  ///< bytes of gathered tensors
};

}  // namespace

TensorFile map_torch_file(const std::string& path) {
  return TorchFile(path).read();
}

}  // namespace vlm
