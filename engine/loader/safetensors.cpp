// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/safetensors.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace vlm {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr size_t kMaxDimensions = 16;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Failure(ErrorKind::kInvalidModel, path + ": " + what);
}

/// Bits of one element.
uint64_t known_bits(const std::string& path, const std::string& name, const std::string& dtype) {
  const uint64_t bits = element_bits(dtype);
  if (bits == 0)
    fail(path,
         "tensor " + shown_name(name) + " has the unknown type \"" + shown_name(dtype) + "\"");
  return bits;
}

/// Reads one entry; offsets are relative to the data and checked against each other later.
TensorEntry read_entry(const std::string& path, const std::string& name, const Json& json,
                       uint64_t data_start, uint64_t file_size, const std::byte* file) {
  const JsonView view(json, path, "tensor " + shown_name(name));
  TensorEntry entry{name, view.string("dtype", ""), {}, nullptr, 0};
  const Json* shape = view.find("shape");
  const Json* offsets = view.find("data_offsets");
  if (!shape || !shape->is_array() || shape->size() > kMaxDimensions) {
    view.refuse("shape", "a list of sizes is expected");
  }
  if (!offsets || !offsets->is_array() || offsets->size() != 2) {
    view.refuse("data_offsets", "two offsets are expected");
  }
  const auto begin = whole_number((*offsets)[0], 0, INT64_MAX);
  const auto end = whole_number((*offsets)[1], 0, INT64_MAX);
  if (!begin || !end || *begin > *end) {
    view.refuse("data_offsets", "two ascending offsets are expected");
  }
  const uint64_t needed = data_start + static_cast<uint64_t>(*end);
  if (needed > file_size) {
    fail(path, "ends after " + std::to_string(file_size) + " bytes, but tensor " +
                   shown_name(name) + " needs " + std::to_string(needed) +
                   "; the file is cut short, fetch it again");
  }
  uint64_t bits = known_bits(path, name, entry.dtype);
  for (const Json& size : *shape) {
    const auto value = whole_number(size, 0, INT64_MAX);
    if (!value || __builtin_mul_overflow(bits, static_cast<uint64_t>(*value), &bits)) {
      view.refuse("shape", "sizes that fit the file are expected");
    }
    entry.shape.push_back(*value);
  }
  entry.bytes = static_cast<size_t>(*end - *begin);
  if (bits % 8 != 0 || bits / 8 != entry.bytes) {
    fail(path, "tensor " + shown_name(name) + " takes " + std::to_string(entry.bytes) +
                   " bytes, but its shape " + shape->dump() + " of " + entry.dtype + " needs " +
                   std::to_string(bits / 8));
  }
  entry.data = file + data_start + *begin;
  return entry;
}

/// Checks that the sorted entries fill the data from its start to its end.
void check_layout(const TensorFile& file, const std::byte* start, const std::byte* end) {
  const std::byte* expected = start;
  for (const TensorEntry& entry : file.entries) {
    if (entry.data != expected) {
      fail(file.path, "tensor " + shown_name(entry.name) + " starts at data offset " +
                          std::to_string(entry.data - start) + ", but " +
                          std::to_string(expected - start) +
                          " is expected: tensors must neither overlap nor leave gaps");
    }
    expected = entry.data + entry.bytes;
  }
  if (expected != end) {
    fail(file.path, "its tensors take " + std::to_string(expected - start) +
                        " bytes, but the file holds " + std::to_string(end - start) + " for them");
  }
}

}  // namespace

TensorFile map_safetensors(const std::string& path) {
  const auto mapping = std::make_shared<const MappedFile>(path);
  const std::byte* data = mapping->data();
  const uint64_t size = mapping->size();
  refuse_pointer(path, {reinterpret_cast<const char*>(data), std::min<size_t>(size, 64)});
  if (size < kLengthBytes + 2) {
    fail(path, "is " + std::to_string(size) +
                   " bytes long, too short for a safetensors file; fetch it again");
  }
  uint64_t header_size = 0;
  for (int i = 7; i >= 0; --i) header_size = header_size << 8 | std::to_integer<uint64_t>(data[i]);
  if (header_size > kMaxHeader || header_size > size - kLengthBytes) {
    fail(path, "its header claims " + std::to_string(header_size) +
                   " bytes, but the file ends after " + std::to_string(size) +
                   "; it is cut short or no safetensors file, fetch it again");
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + kLengthBytes, header_size);
  const Json header = parse_json(text, path);
  if (!header.is_object()) fail(path, "its header is no JSON object");

  TensorFile file{path, {}, mapping, mapping};
  const uint64_t data_start = kLengthBytes + header_size;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    file.entries.push_back(read_entry(path, name, json, data_start, size, data));
  }
  std::sort(file.entries.begin(), file.entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.data, a.bytes) < std::pair(b.data, b.bytes);
  });
  check_layout(file, data + data_start, data + size);
  return file;
}

}  // namespace vlm
