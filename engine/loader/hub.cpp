// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/hub.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/json.h"

namespace vlm {
namespace {

constexpr size_t kMaxRefBytes = 4096;

/// A part of an id or the name of a snapshot: fit for a file's name.
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 96 && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
         });
}

/// What the variable holds, `~` in front read as the home directory; empty where it is not set.
std::string variable(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value ? value : "";
  const char* home = std::getenv("HOME");
  if (home && (text == "~" || text.starts_with("~/"))) text.replace(0, 1, home);
  return text;
}

bool is_directory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

}  // namespace

bool is_hub_id(std::string_view name) {
  const size_t slash = name.find('/');
  return slash != std::string_view::npos && is_name(name.substr(0, slash)) &&
         is_name(name.substr(slash + 1));
}

std::string hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (std::string path = variable(name); !path.empty()) return path;
  }
  if (const std::string home = variable("HF_HOME"); !home.empty()) return home + "/hub";
  std::string cache = variable("XDG_CACHE_HOME");
  if (cache.empty()) cache = variable("HOME") + "/.cache";
  return cache + "/huggingface/hub";
}

std::optional<std::string> find_in_hub_cache(std::string_view id) {
  if (!is_hub_id(id)) return std::nullopt;
  std::string folder(id);
  folder.replace(folder.find('/'), 1, "--");
  const std::string repository = hub_cache() + "/models--" + folder;
  const std::string ref = repository + "/refs/main";
  if (!file_exists(ref)) return std::nullopt;
  std::string snapshot = read_small_file(ref, kMaxRefBytes);
  while (!snapshot.empty() && std::isspace(static_cast<unsigned char>(snapshot.back()))) {
    snapshot.pop_back();
  }
  if (!is_name(snapshot)) return std::nullopt;
  const std::string directory = repository + "/snapshots/" + snapshot;
  return is_directory(directory) ? std::optional(directory) : std::nullopt;
}

std::string fetch_advice(std::string_view id) {
  return "fetch it with: hf download " + std::string(id) + " (older: huggingface-cli download " +
         std::string(id) + ")";
}

}  // namespace vlm
