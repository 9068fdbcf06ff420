// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vlm {

/// U+FFFD, what stands for bytes that are no character.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Length in bytes of the character that `text` starts with, or 0 where it starts with none.
/// Overlong forms, surrogates and values above U+10FFFF are no characters. Reentrant.
size_t utf8_length(std::string_view text);

/// Whether `text`, which starts with no character, could become one by growing. Reentrant.
bool utf8_incomplete(std::string_view text);

bool utf8_valid(std::string_view text);

/// `text` with every broken sequence replaced as Python's errors="replace" does it: one U+FFFD for
/// each longest start of a character. Reentrant.
std::string utf8_repaired(std::string_view text);

}  // namespace vlm
