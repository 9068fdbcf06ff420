// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/added_tokens.h"

#include <algorithm>

#include "text/utf8.h"

namespace vlm {
namespace {

/// Bytes of the white space character at the start of `text`, or 0.
size_t space_length(std::string_view text, Spaces spaces) {
  static constexpr std::string_view kSpaces[] = {
      " ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\u0085", "\u00A0", "\u1680",
      "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
      "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  for (const std::string_view space : kSpaces) {
    if (text.starts_with(space)) return space.size();
  }
  const bool separator = !text.empty() && text[0] >= '\x1c' && text[0] <= '\x1f';
  return separator && spaces == Spaces::kPython ? 1 : 0;
}

/// Where the white space that ends `text` starts.
size_t trailing_space_start(std::string_view text, Spaces spaces) {
  size_t start = 0, position = 0;
  while (position < text.size()) {
    const size_t space = space_length(text.substr(position), spaces);
    position += space ? space : std::max<size_t>(1, utf8_length(text.substr(position)));
    if (!space) start = position;
  }
  return start;
}

size_t leading_space_length(std::string_view text, Spaces spaces) {
  size_t length = 0;
  while (const size_t space = space_length(text.substr(length), spaces)) length += space;
  return length;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens, Spaces spaces)
    : tokens_(std::move(tokens)), spaces_(spaces) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    by_first_[static_cast<unsigned char>(tokens_[i].text[0])].push_back(i);
  }
}

const AddedToken* AddedTokenFinder::match(std::string_view text) const {
  for (const size_t index : by_first_[static_cast<unsigned char>(text[0])]) {
    if (text.starts_with(tokens_[index].text)) return &tokens_[index];
  }
  return nullptr;
}

std::vector<TextPart> AddedTokenFinder::split(std::string_view text) const {
  std::vector<TextPart> parts;
  size_t done = 0;
  for (size_t position = 0; position < text.size();) {
    const AddedToken* token = match(text.substr(position));
    if (!token) {
      ++position;
      continue;
    }
    size_t start = position;
    size_t stop = position + token->text.size();
    position = stop;
    if (token->strip_left) {
      start = std::max(done, trailing_space_start(text.substr(0, start), spaces_));
    }
    if (token->strip_right) stop += leading_space_length(text.substr(stop), spaces_);
    if (start > done) parts.push_back({-1, text.substr(done, start - done)});
    parts.push_back({token->id, text.substr(start, stop - start)});
    done = stop;  // the search goes on behind the token itself: the next may start with white space
  }
  if (done < text.size()) parts.push_back({-1, text.substr(done)});
  return parts;
}

}  // namespace vlm
