// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/description.h"

#include <cstddef>

#include "text/utf8.h"

namespace vlm {
namespace {

/// Length in bytes of the white space character at the start of `text`; 0 where there is none.
size_t leading_space(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (text.empty()) {
    return 0;
  }
  const unsigned char first = byte(0);
  if (first == ' ' || (first >= 0x09 && first <= 0x0D) || (first >= 0x1C && first <= 0x1F)) {
    return 1;
  }
  if (text.size() >= 2 && first == 0xC2 && (byte(1) == 0x85 || byte(1) == 0xA0)) {
    return 2;
  }
  if (text.size() < 3) {
    return 0;
  }
  const unsigned code = ((first & 0x0Fu) << 12) | ((byte(1) & 0x3Fu) << 6) | (byte(2) & 0x3Fu);
  if ((first & 0xF0) != 0xE0) {
    return 0;
  }
  const bool space = code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
                     code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
  return space ? 3 : 0;
}

size_t trailing_space(std::string_view text) {
  for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    if (leading_space(text.substr(text.size() - length)) == length) {
      return length;
    }
  }
  return 0;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  while (const size_t length = leading_space(text)) {
    text.remove_prefix(length);
  }
  while (const size_t length = trailing_space(text)) {
    text.remove_suffix(length);
  }
  return text;
}

std::string description_text(const Tokenizer& tokenizer, std::span<const int64_t> ids) {
  return std::string(trimmed(tokenizer.decode(ids)));
}

std::string token_piece(const Tokenizer& tokenizer, int64_t id) {
  if (id < 0 || id >= tokenizer.vocab_size()) {
    return {};
  }
  const std::string bytes = tokenizer.token_text(id);
  if (!tokenizer.is_byte(id) || bytes.size() != 1) {
    return utf8_repaired(bytes);
  }
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(bytes[0]);
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 0xF] + ">";
}

}  // namespace vlm
