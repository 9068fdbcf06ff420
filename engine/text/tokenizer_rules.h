// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer.h"

namespace vlm {

/// When `▁` goes in front of a stretch of ordinary text.
enum class PrefixScheme {
  kNever,
  kFirst,       ///< at the start of the whole text, unless a space is there already
  kAlways,      ///< at the start and after every added token, unless a space is there already
  kEverywhere,  ///< the same, whatever is there
  kText         ///< in front of the whole text, whatever it begins with
};

/// All that a tokenizer of the Llama kind is.
struct TokenizerRules {
  BpeModel bpe;
  std::vector<AddedToken> added;
  Spaces spaces = Spaces::kUnicode;  ///< that added tokens take
  PrefixScheme prefix = PrefixScheme::kFirst;
  bool decode_bytes = true;     ///< `<0xNN>` pieces become bytes
  bool bytes_apart = false;     ///< each byte that is no character is U+FFFD, not its whole run
  bool decode_strip = true;     ///< one space in front of a decoded text is dropped
  std::vector<int64_t> before;  ///< ids in front of every text: BOS, where the tokenizer adds it
  std::vector<int64_t> after;
  std::optional<int64_t> bos_id;
  std::optional<int64_t> eos_id;
};

/// From tokenizer.model with tokenizer_config.json, or where that lists no tokens with
/// added_tokens.json and special_tokens_map.json, as the reference's LlamaTokenizer reads them.
/// Throw Failure, like the next.
TokenizerRules rules_from_sentencepiece(const std::string& directory,
                                        const TokenizerOptions& options);

/// From tokenizer.json, which decides everything but what BOS and EOS are called.
TokenizerRules rules_from_tokenizer_json(const std::string& directory,
                                         const TokenizerOptions& options);

}  // namespace vlm
