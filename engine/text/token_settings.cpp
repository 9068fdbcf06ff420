// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/token_settings.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace vlm {
namespace {

constexpr int64_t kMaxId = int64_t{1} << 24;

const std::pair<const char*, const char*> kStandardNames[] = {
    {"bos_token", "<s>"},   {"eos_token", "</s>"},  {"unk_token", "<unk>"}, {"sep_token", nullptr},
    {"pad_token", nullptr}, {"cls_token", nullptr}, {"mask_token", nullptr}};

bool is_standard(const std::string& key) {
  return std::any_of(std::begin(kStandardNames), std::end(kStandardNames),
                     [&](const auto& entry) { return key == entry.first; });
}

/// Text of a token that is written as such or as an object.
std::optional<std::string> token_text(const JsonView& view, const std::string& key) {
  const Json* value = view.find(key);
  if (!value) return std::nullopt;
  if (value->is_object()) return view.object(key)->string("content");
  return view.string(key);
}

std::vector<std::string> token_list(const JsonView& view, const std::string& key) {
  std::vector<std::string> texts;
  const Json* value = view.find(key);
  if (!value) return texts;
  for (const Json& entry : *value) {
    if (entry.is_string()) {
      texts.push_back(entry.get<std::string>());
    } else if (entry.is_object()) {
      texts.push_back(JsonView(entry, view.file(), view.name_of(key)).string("content", ""));
    } else {
      view.refuse(key, "a list of tokens is expected");
    }
  }
  return texts;
}

int64_t parse_id(const JsonView& view, const std::string& key) {
  int64_t id = -1;
  const char* end = key.data() + key.size();
  const auto [stop, error] = std::from_chars(key.data(), end, id);
  if (error != std::errc() || stop != end || id < 0 || id > kMaxId) {
    throw Failure(ErrorKind::kInvalidModel, view.file() + ": " + view.name_of(key) + " is named " +
                                                Json(key).dump() + ", but a token id is expected");
  }
  return id;
}

void sort_by_id(std::vector<AddedToken>& tokens) {
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
}

}  // namespace

AddedToken read_added_token(const JsonView& view) {
  AddedToken token;
  token.text = view.string("content", "");
  if (token.text.empty()) view.refuse("content", "the token's text is expected");
  token.special = view.boolean("special", false);
  token.normalized = view.boolean("normalized", !token.special);
  token.strip_left = view.boolean("lstrip", false);
  token.strip_right = view.boolean("rstrip", false);
  if (view.boolean("single_word", false)) {
    view.unsupported("single_word", "false is supported");
  }
  return token;
}

bool AddedTokenList::contains(std::string_view text) const {
  return std::any_of(tokens_.begin(), tokens_.end(),
                     [&](const AddedToken& token) { return token.text == text; });
}

int64_t AddedTokenList::add(AddedToken token) {
  const auto there = std::find_if(tokens_.begin(), tokens_.end(), [&](const AddedToken& other) {
    return other.text == token.text;
  });
  if (there != tokens_.end()) {
    token.id = there->id;
    token.special |= there->special;
    *there = token;
    return token.id;
  }
  token.id = find_piece_(token.text).value_or(next_id_);
  next_id_ = std::max(next_id_, token.id + 1);
  tokens_.push_back(std::move(token));
  return tokens_.back().id;
}

int64_t AddedTokenList::add_new(AddedToken token) {
  for (const AddedToken& other : tokens_) {
    if (other.text == token.text) return other.id;
  }
  return add(std::move(token));
}

void AddedTokenList::add_specials(const std::vector<std::string>& texts, bool named) {
  for (const std::string& text : texts) {
    AddedToken token;
    token.text = text;
    token.special = true;
    token.named = named;
    if (!text.empty()) add_new(std::move(token));
  }
}

TokenSettings::TokenSettings(const std::string& directory)
    : path_(directory + "/tokenizer_config.json") {
  if (file_exists(path_)) config_ = read_json_file(path_);
  const auto numbered = view().object("added_tokens_decoder");
  if (!numbered) read_special_tokens_map(directory + "/special_tokens_map.json");
  for (const auto& [key, fallback] : kStandardNames) {
    if (const auto text = named(key)) names_.push_back(*text);
  }
  for (const auto& [key, value] : config_.items()) {
    if (key.ends_with("_token") && !is_standard(key) && value.is_string()) {
      names_.push_back(value.get<std::string>());
    }
  }
  const Json* extra = view().find("extra_special_tokens");
  if (extra && extra->is_object()) {
    for (const auto& [key, value] : extra->items()) {
      if (value.is_string()) names_.push_back(value.get<std::string>());
    }
  }
  if (numbered) {
    read_numbered(*numbered);
  } else {
    read_added_tokens(directory + "/added_tokens.json");
  }
  sort_by_id(numbered_);
}

void TokenSettings::read_numbered(const JsonView& table) {
  numbered_path_ = path_;
  for (const auto& [key, value] : table.json().items()) {
    numbered_.push_back(read_added_token(JsonView(value, path_, table.name_of(key))));
    numbered_.back().id = parse_id(table, key);
  }
}

void TokenSettings::read_special_tokens_map(const std::string& path) {
  if (!file_exists(path)) return;
  const Json map = read_json_file(path);
  const JsonView named(map, path);
  for (const auto& [key, value] : map.items()) {
    // The reference forgets the list of additional ones on its way.
    if (!key.ends_with("_token") || value.is_null()) continue;
    const auto text = token_text(named, key);
    if (!text) named.refuse(key, "a token is expected");
    config_[key] = *text;
  }
}

void TokenSettings::read_added_tokens(const std::string& path) {
  if (!file_exists(path)) return;
  const Json json = read_json_file(path);
  const JsonView table(json, path);
  const std::vector<std::string> extra = extra_tokens();
  std::set<std::string> special(extra.begin(), extra.end());
  for (const auto& [key, fallback] : kStandardNames) {
    if (const auto text = token_text(view(), key)) special.insert(*text);
  }
  for (const auto& [text, id] : json.items()) {
    AddedToken token;
    token.text = text;
    token.id = table.integer(text, -1, 0, kMaxId);
    token.special = special.contains(text);
    token.normalized = !token.special;
    numbered_.push_back(std::move(token));
  }
  numbered_path_ = path;
}

std::vector<std::string> TokenSettings::extra_tokens() const {
  const Json* extra = view().find("extra_special_tokens");
  if (extra && extra->is_array()) return token_list(view(), "extra_special_tokens");
  return extra ? std::vector<std::string>{} : token_list(view(), "additional_special_tokens");
}

std::optional<std::string> TokenSettings::named(const std::string& key) const {
  if (config_.contains(key)) return token_text(view(), key);
  for (const auto& [name, fallback] : kStandardNames) {
    if (key == name && fallback) return fallback;
  }
  return std::nullopt;
}

void TokenSettings::add_to(AddedTokenList& list) const {
  const auto is_named = [&](const std::string& text) {
    return std::find(names_.begin(), names_.end(), text) != names_.end();
  };
  for (const AddedToken& wanted : numbered_) {
    AddedToken token = wanted;
    token.named = is_named(token.text);
    token.special |= token.named;
    const int64_t id = list.add(token);
    if (id != wanted.id) {
      throw Failure(ErrorKind::kInvalidModel,
                    numbered_path_ + ": token " + Json(wanted.text).dump() + " has the id " +
                        std::to_string(wanted.id) + ", but " + std::to_string(id) +
                        " is expected: that of the vocabulary, or the next free one");
    }
  }
  list.add_specials(names_, true);
  list.add_specials(extra_tokens(), true);
}

}  // namespace vlm
