// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/utf8.h"

#include <algorithm>

namespace vlm {
namespace {

unsigned byte_at(std::string_view text, size_t index) {
  return static_cast<unsigned char>(text[index]);
}

/// How many bytes the first byte announces; 0 for one that starts no character.
size_t announced_length(unsigned first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

/// Whether `byte` may stand at `index` (≥ 1) behind `first`.
bool continues(unsigned first, size_t index, unsigned byte) {
  unsigned low = 0x80, high = 0xBF;
  if (index == 1) {
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  }
  return byte >= low && byte <= high;
}

/// Length of the longest start of a character at the front of `text`, at most `wanted`.
size_t good_start(std::string_view text, size_t wanted) {
  const size_t limit = std::min(wanted, text.size());
  size_t length = wanted > 0 ? 1 : 0;
  while (length > 0 && length < limit &&
         continues(byte_at(text, 0), length, byte_at(text, length))) {
    ++length;
  }
  return length;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const size_t wanted = announced_length(byte_at(text, 0));
  return wanted > 0 && good_start(text, wanted) == wanted ? wanted : 0;
}

bool utf8_incomplete(std::string_view text) {
  if (text.empty()) return true;
  const size_t wanted = announced_length(byte_at(text, 0));
  return text.size() < wanted && good_start(text, wanted) == text.size();
}

bool utf8_valid(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string utf8_repaired(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  while (!text.empty()) {
    size_t length = utf8_length(text);
    if (length > 0) {
      repaired += text.substr(0, length);
    } else {
      repaired += kReplacement;
      length = std::max<size_t>(1, good_start(text, announced_length(byte_at(text, 0))));
    }
    text.remove_prefix(length);
  }
  return repaired;
}

}  // namespace vlm
