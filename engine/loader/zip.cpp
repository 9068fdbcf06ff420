// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/zip.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/failure.h"
#include "loader/tensor_file.h"

namespace vlm {
namespace {

// Sizes and marks of the format's structures (PKWARE's APPNOTE, 4.3).
constexpr uint64_t kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr uint64_t kEntryBytes = 46, kLocalBytes = 30;
constexpr uint64_t kEndMark = 0x06054b50, kEnd64Mark = 0x06064b50, kLocatorMark = 0x07064b50;
constexpr uint64_t kEntryMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr uint64_t kIn64 = 0xFFFFFFFF;  // the number stands in the 64-bit field
constexpr uint64_t kEncrypted = 1;
constexpr uint64_t kExtra64 = 1;

/// A range of the file that is read with checked bounds.
class Bytes {
 public:
  Bytes(const std::byte* data, uint64_t size, const std::string& path)
      : data_(data), size_(size), path_(path) {}

  uint64_t size() const { return size_; }
  const std::byte* data() const { return data_; }

  [[noreturn]] void fail(const std::string& what) const {
    throw Failure(ErrorKind::kInvalidModel, path_ + ": " + what);
  }
  Bytes part(uint64_t offset, uint64_t size) const {
    if (offset > size_ || size > size_ - offset) {
      fail(
          "its directory points beyond the file's end; it is cut short or damaged, fetch it again");
    }
    return {data_ + offset, size, path_};
  }
  uint64_t number(uint64_t offset, int bytes) const {
    const Bytes field = part(offset, static_cast<uint64_t>(bytes));
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) {
      value = value << 8 | std::to_integer<uint64_t>(field.data_[i]);
    }
    return value;
  }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::byte* data_;
  uint64_t size_;
  const std::string& path_;
};

struct Directory {
  uint64_t offset = 0, bytes = 0, entries = 0;
};

Directory find_directory(const Bytes& file) {
  const auto broken = [&] {
    file.fail(
        "is no archive of torch.save, or cut short: the directory at its end is missing; "
        "fetch it again");
  };
  if (file.size() < kEndBytes) broken();
  const uint64_t end = file.size() - kEndBytes;
  if (file.number(end, 4) != kEndMark || file.number(end + 20, 2) != 0) broken();
  Directory found{file.number(end + 16, 4), file.number(end + 12, 4), file.number(end + 10, 2)};
  uint64_t behind = end;
  if (end >= kLocatorBytes && file.number(end - kLocatorBytes, 4) == kLocatorMark) {
    behind = file.number(end - kLocatorBytes + 8, 8);
    const Bytes end64 = file.part(behind, kEnd64Bytes);
    if (end64.number(0, 4) != kEnd64Mark) broken();
    found = {end64.number(48, 8), end64.number(40, 8), end64.number(32, 8)};
  }
  if (found.offset > behind || found.bytes != behind - found.offset ||
      found.entries > found.bytes / kEntryBytes) {
    broken();
  }
  return found;
}

/// The blocks of an extra field: number and content. They must fill it.
std::vector<std::pair<uint64_t, Bytes>> extra_blocks(const Bytes& extra) {
  std::vector<std::pair<uint64_t, Bytes>> blocks;
  for (uint64_t at = 0; at < extra.size();) {
    const uint64_t size = extra.number(at + 2, 2);
    blocks.emplace_back(extra.number(at, 2), extra.part(at + 4, size));
    at += 4 + size;
  }
  return blocks;
}

/// One entry of the directory.
struct Entry {
  std::string name;
  uint64_t header = 0;  ///< where its local header is
  uint64_t bytes = 0;
  uint32_t crc = 0;
};

/// Reads the entry at `at` of the directory and moves on to the next.
Entry read_entry(const Bytes& directory, uint64_t& at) {
  const Bytes fixed = directory.part(at, kEntryBytes);
  if (fixed.number(0, 4) != kEntryMark) directory.fail("its directory is damaged; fetch it again");
  const uint64_t name_bytes = fixed.number(28, 2), extra_bytes = fixed.number(30, 2);
  Entry entry;
  entry.name = directory.part(at + kEntryBytes, name_bytes).text();
  entry.crc = static_cast<uint32_t>(fixed.number(16, 4));
  if ((fixed.number(8, 2) & kEncrypted) != 0 || fixed.number(10, 2) != 0) {
    directory.fail("its record " + shown_name(entry.name) +
                   " is compressed or encrypted, but torch.save stores records as they are");
  }
  uint64_t packed = fixed.number(20, 4);
  entry.bytes = fixed.number(24, 4);
  entry.header = fixed.number(42, 4);
  const Bytes extra = directory.part(at + kEntryBytes + name_bytes, extra_bytes);
  for (const auto& [kind, block] : extra_blocks(extra)) {
    if (kind != kExtra64) continue;
    uint64_t next = 0;
    for (uint64_t* value : {&entry.bytes, &packed, &entry.header}) {
      if (*value != kIn64) continue;
      *value = block.number(next, 8);
      next += 8;
    }
  }
  if (packed != entry.bytes)
    directory.fail("its record " + shown_name(entry.name) + " has two sizes");
  at += kEntryBytes + name_bytes + extra_bytes + fixed.number(32, 2);
  return entry;
}

/// Where the entry's data begin.
uint64_t data_offset(const Bytes& file, const Entry& entry) {
  const Bytes header = file.part(entry.header, kLocalBytes);
  const uint64_t name_bytes = header.number(26, 2), extra_bytes = header.number(28, 2);
  const uint64_t name_at = entry.header + kLocalBytes;
  if (header.number(0, 4) != kLocalMark || file.part(name_at, name_bytes).text() != entry.name) {
    file.fail("its record " + shown_name(entry.name) +
              " is not where the directory says; fetch it again");
  }
  extra_blocks(file.part(name_at + name_bytes, extra_bytes));
  return name_at + name_bytes + extra_bytes;
}

}  // namespace

std::map<std::string, ZipRecord, std::less<>> read_zip(const MappedFile& mapped,
                                                       const std::string& path) {
  const Bytes file(mapped.data(), mapped.size(), path);
  const Directory found = find_directory(file);
  const Bytes directory = file.part(found.offset, found.bytes);
  const Bytes content = file.part(0, found.offset);
  std::map<std::string, ZipRecord, std::less<>> records;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  uint64_t at = 0;
  for (uint64_t i = 0; i < found.entries; ++i) {
    Entry entry = read_entry(directory, at);
    const uint64_t begin = data_offset(content, entry);
    const Bytes data = content.part(begin, entry.bytes);
    ranges.emplace_back(entry.header, begin + entry.bytes);
    const bool fresh =
        records.emplace(entry.name, ZipRecord{data.data(), data.size(), entry.crc}).second;
    if (!fresh) file.fail("holds the record " + shown_name(entry.name) + " twice");
  }
  if (at != directory.size()) file.fail("its directory is damaged; fetch it again");
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) file.fail("its records overlap");
  }
  return records;
}

bool checksum_holds(const ZipRecord& record) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t value = byte;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0u);
      table[byte] = value;
    }
    return table;
  }();
  uint32_t sum = 0xFFFFFFFFu;
  for (size_t i = 0; i < record.bytes; ++i) {
    sum = sum >> 8 ^ kTable[(sum ^ std::to_integer<uint32_t>(record.data[i])) & 0xFF];
  }
  return (sum ^ 0xFFFFFFFFu) == record.crc;
}

}  // namespace vlm
