// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vlm {

/// A token that is cut out of the text before anything else is done with it.
struct AddedToken {
  std::string text;
  int64_t id = 0;
  bool special = false;  ///< left out of decoded text
  bool named = false;    ///< has a role in the tokenizer's settings: BOS, padding, additional …
  bool normalized = false;  ///< cut out after normalisation instead of before
  bool strip_left = false;  ///< takes the white space in front of it as well
  bool strip_right = false;
};

/// A stretch of text: one added token, or text between such.
struct TextPart {
  int64_t id = -1;  ///< -1: ordinary text
  std::string_view text;
};

/// What counts as white space beside a token.
enum class Spaces {
  kUnicode,  ///< Unicode's White_Space
  kPython    ///< the same and U+001C to U+001F, as Python's str.strip has it
};

/// Finds added tokens: the leftmost first, the longest of those that start there. Constant after
/// construction; reentrant.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// Tokens with empty text are left out.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens, Spaces spaces = Spaces::kUnicode);

  /// The parts of `text` in order, none of them empty text.
  std::vector<TextPart> split(std::string_view text) const;

 private:
  const AddedToken* match(std::string_view text) const;

  std::vector<AddedToken> tokens_;                 ///< longest first
  std::array<std::vector<size_t>, 256> by_first_;  ///< indices of tokens_ by their first byte
  Spaces spaces_ = Spaces::kUnicode;
};

}  // namespace vlm
