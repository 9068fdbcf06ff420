// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/json.h"

#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <vector>

namespace vlm {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxExcerpt = 60;

/// Watches a parse: bounds the nesting and finds names used twice.
class ParseGuard {
 public:
  explicit ParseGuard(const std::string& file) : file_(file) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= kMaxDepth) {
        throw Failure(ErrorKind::kInvalidModel, file_ + ": nested deeper than " +
                                                    std::to_string(kMaxDepth) +
                                                    " levels; this is no file of a checkpoint");
      }
      names_.emplace_back();
    } else if (event == Event::object_end || event == Event::array_end) {
      names_.pop_back();
    } else if (event == Event::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (!names_.back().insert(name).second) {
        throw Failure(ErrorKind::kInvalidModel,
                      file_ + ": the name \"" + name + "\" occurs twice in one object");
      }
    }
    return true;
  }

 private:
  const std::string& file_;
  std::vector<std::set<std::string>> names_;
};

std::string range_text(const std::string& kind, const std::string& min, const std::string& max) {
  return kind + " from " + min + " to " + max + " is expected";
}

std::string short_number(double value) {
  return Json(value).dump();
}

}  // namespace

bool file_exists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

void refuse_pointer(const std::string& path, std::string_view start) {
  if (start.starts_with("version https://git-lfs")) {
    throw Failure(ErrorKind::kInvalidModel,
                  path +
                      ": is only the pointer that Git LFS keeps in place of the file; run git lfs "
                      "pull");
  }
}

std::string read_small_file(const std::string& path, size_t max_bytes) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) {
    throw Failure(ErrorKind::kNotFound, path + ": cannot be read: " + std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    throw Failure(ErrorKind::kNotFound, path + ": is not a file");
  }
  if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    throw Failure(ErrorKind::kInvalidModel, path + ": is " + std::to_string(info.st_size) +
                                                " bytes long, at most " +
                                                std::to_string(max_bytes) + " are expected");
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(static_cast<size_t>(info.st_size), '\0');
  if (!stream || !stream.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    throw Failure(ErrorKind::kNotFound,
                  path + ": cannot be read; check its permissions, or fetch it again");
  }
  refuse_pointer(path, text);
  return text;
}

Json parse_json(std::string_view text, const std::string& file) {
  ParseGuard guard(file);
  try {
    return Json::parse(text.begin(), text.end(),
                       [&guard](int depth, Json::parse_event_t event, Json& parsed) {
                         return guard(depth, event, parsed);
                       });
  } catch (const Json::parse_error& error) {
    // error.what() quotes bytes of the file, which need not be text.
    throw Failure(ErrorKind::kInvalidModel,
                  file + ": is not valid JSON, broken at byte " + std::to_string(error.byte) +
                      " of " + std::to_string(text.size()) + "; fetch the file again or repair it");
  } catch (const Json::exception& error) {  // a number that no type holds
    throw Failure(
        Error{ErrorKind::kInvalidModel, file + ": holds JSON that cannot be read", error.what()});
  }
}

Json read_json_file(const std::string& path, size_t max_bytes) {
  return parse_json(read_small_file(path, max_bytes), path);
}

std::optional<int64_t> whole_number(const Json& value, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return std::nullopt;
  }
  const int64_t number = value.get<int64_t>();
  return number >= min && number <= max ? std::optional(number) : std::nullopt;
}

std::string json_excerpt(const Json& value) {
  if (value.is_object()) return value.empty() ? "{}" : "an object";
  if (value.is_array() && value.size() > 8) {
    return "a list of " + std::to_string(value.size());
  }
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxExcerpt) {
    size_t end = kMaxExcerpt;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end) + "…";
  }
  return text;
}

JsonView::JsonView(const Json& object, std::string file, std::string path)
    : object_(&object), file_(std::move(file)), path_(std::move(path)) {
  if (!object.is_object()) {
    throw Failure(ErrorKind::kInvalidModel, file_ + ": " + (path_.empty() ? "" : path_ + " ") +
                                                "is " + json_excerpt(object) +
                                                ", but an object is expected");
  }
}

const Json* JsonView::find(std::string_view key) const {
  const auto found = object_->find(std::string(key));
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::string JsonView::name_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

std::string JsonView::complaint(std::string_view key, const std::string& expected) const {
  const Json* value = find(key);
  return file_ + ": " + name_of(key) + " is " + (value ? json_excerpt(*value) : "missing") +
         ", but " + expected;
}

void JsonView::refuse(std::string_view key, const std::string& expected) const {
  throw Failure(ErrorKind::kInvalidModel, complaint(key, expected));
}

void JsonView::unsupported(std::string_view key, const std::string& expected) const {
  throw Failure(ErrorKind::kUnsupported, complaint(key, expected));
}

std::optional<int64_t> JsonView::integer(std::string_view key, int64_t min, int64_t max) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  const auto number = whole_number(*value, min, max);
  if (!number) refuse(key, range_text("a whole number", std::to_string(min), std::to_string(max)));
  return number;
}

int64_t JsonView::integer(std::string_view key, int64_t fallback, int64_t min, int64_t max) const {
  return integer(key, min, max).value_or(fallback);
}

double JsonView::number(std::string_view key, double fallback, double min, double max) const {
  const Json* value = find(key);
  if (!value) return fallback;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!std::isfinite(number) || number < min || number > max) {
    refuse(key, range_text("a number", short_number(min), short_number(max)));
  }
  return number;
}

bool JsonView::boolean(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean()) refuse(key, "true or false is expected");
  return value->get<bool>();
}

std::optional<std::string> JsonView::string(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) refuse(key, "a text is expected");
  return value->get<std::string>();
}

std::string JsonView::string(std::string_view key, const std::string& fallback) const {
  return string(key).value_or(fallback);
}

std::optional<JsonView> JsonView::object(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_object()) refuse(key, "an object is expected");
  return JsonView(*value, file_, name_of(key));
}

}  // namespace vlm
