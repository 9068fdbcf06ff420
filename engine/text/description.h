// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace vlm {

/// `text` without the white space (Unicode's, in UTF-8) at both ends. Reentrant.
std::string_view trimmed(std::string_view text);

/// What a description says: the generated ids as text, special tokens left out, trimmed. A stop
/// string that ended it stays. Reentrant.
std::string description_text(const Tokenizer& tokenizer, std::span<const int64_t> ids);

/// What one id adds to a text, as valid UTF-8: special tokens as they are written, a piece for one
/// byte as <0xHH>. Empty for ids that the tokenizer does not know. Reentrant.
std::string token_piece(const Tokenizer& tokenizer, int64_t id);

}  // namespace vlm
