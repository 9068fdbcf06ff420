// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/added_tokens.h"

namespace vlm {

/// Added tokens as they come together from several files. Throws Failure.
class AddedTokenList {
 public:
  using FindPiece = std::function<std::optional<int64_t>(std::string_view)>;

  /// `find_piece` gives the id of a text that is in the vocabulary already; ids from `next_id` on
  /// are free.
  AddedTokenList(FindPiece find_piece, int64_t next_id)
      : find_piece_(std::move(find_piece)), next_id_(next_id) {}

  /// Gives the token the id of its text, or the next free one; a token that is there already gets
  /// the new flags.
  int64_t add(AddedToken token);
  /// The same, but for a token that is there already.
  int64_t add_new(AddedToken token);
  /// Special tokens of these texts, but for those that are there already.
  void add_specials(const std::vector<std::string>& texts, bool named);
  bool contains(std::string_view text) const;

  std::vector<AddedToken> take() { return std::move(tokens_); }

 private:
  FindPiece find_piece_;
  int64_t next_id_;
  std::vector<AddedToken> tokens_;
};

/// tokenizer_config.json and the older files beside it, as the reference puts them together.
class TokenSettings {
 public:
  explicit TokenSettings(const std::string& directory);

  /// Adds what the files list: numbered tokens first, then named ones, then extra ones. Throws
  /// Failure where a number is not the one that the token gets.
  void add_to(AddedTokenList& list) const;

  /// Text of bos_token, eos_token …; nothing where it is null or absent without a default.
  std::optional<std::string> named(const std::string& key) const;
  const JsonView view() const { return JsonView(config_, path_); }

 private:
  void read_special_tokens_map(const std::string& path);
  void read_numbered(const JsonView& table);
  void read_added_tokens(const std::string& path);
  std::vector<std::string> extra_tokens() const;

  std::string path_;
  Json config_ = Json::object();
  std::vector<std::string> names_;  ///< texts of all named tokens, in the order of their keys
  std::vector<AddedToken> numbered_;
  std::string numbered_path_;
};

/// Flags and text of a token written as an object. Throws Failure.
AddedToken read_added_token(const JsonView& view);

}  // namespace vlm
