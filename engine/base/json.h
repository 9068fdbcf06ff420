// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/failure.h"

namespace vlm {

using Json = nlohmann::json;

/// Whether `path` names something that is there. Reentrant.
bool file_exists(const std::string& path);

/// Throws Failure (kInvalidModel) where a file that begins like this is only what Git LFS keeps in
/// its place.
void refuse_pointer(const std::string& path, std::string_view start);

/// Content of a small file. Throws Failure: kNotFound where it is absent or can't be read,
/// kInvalidModel where it is larger than `max_bytes` or only a pointer of Git LFS.
std::string read_small_file(const std::string& path, size_t max_bytes);

/// Parses untrusted JSON. Throws Failure of kInvalidModel, naming `file`, for broken text, nesting
/// deeper than 64 and names that one object holds twice.
Json parse_json(std::string_view text, const std::string& file);

/// Both of the above for a JSON file.
Json read_json_file(const std::string& path, size_t max_bytes = size_t{64} << 20);

/// `value` where it is a whole number in [min, max], else nothing. Reentrant.
std::optional<int64_t> whole_number(const Json& value, int64_t min, int64_t max);

/// `value` as a message shows it, shortened.
std::string json_excerpt(const Json& value);

/// A JSON object together with where it came from, so that every complaint names file, key, what
/// was expected and what was found. A key whose value is null counts as absent. Holds a reference
/// to the object. Members throw Failure of kInvalidModel.
class JsonView {
 public:
  /// `where` names the object in messages: file name, and keys down to it.
  JsonView(const Json& object, std::string file, std::string path = {});

  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// Null where absent.
  const Json* find(std::string_view key) const;

  int64_t integer(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  std::optional<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;
  /// Finite numbers in [min, max].
  double number(std::string_view key, double fallback, double min, double max) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key, const std::string& fallback) const;
  std::optional<std::string> string(std::string_view key) const;
  /// The object under `key`, or none where absent.
  std::optional<JsonView> object(std::string_view key) const;

  /// "FILE: KEY is VALUE, but EXPECTED", thrown as kInvalidModel.
  [[noreturn]] void refuse(std::string_view key, const std::string& expected) const;
  /// The same as kUnsupported.
  [[noreturn]] void unsupported(std::string_view key, const std::string& expected) const;

  const Json& json() const { return *object_; }
  const std::string& file() const { return file_; }
  /// `key` with the keys above it, as messages show it.
  std::string name_of(std::string_view key) const;

 private:
  std::string complaint(std::string_view key, const std::string& expected) const;

  const Json* object_;
  std::string file_;
  std::string path_;
};

}  // namespace vlm
