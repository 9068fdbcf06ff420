// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/error.h"

namespace vlm {

/// Whose reading of tokenizer.model holds; they differ in the `▁` in front of a text, in bytes that
/// are no characters and in what an absent key means.
enum class TokenizerReader {
  kCurrent,  ///< transformers 5, the Hugging Face layout's reference
  kSlow4,    ///< the slow class of transformers 4.37, which the original project pins: `legacy` and
             ///< add_bos_token are true where tokenizer_config.json does not say; reads
             ///< tokenizer.model even beside a tokenizer.json
  kFast4     ///< what 4.37 converts that to, or tokenizer.json
};

/// What the files leave open.
struct TokenizerOptions {
  TokenizerReader reader = TokenizerReader::kCurrent;
  std::vector<std::string> extra;  ///< special tokens added behind those of the files
};

/// Text to token ids and back, equal to the reference's tokenizer. Constant after load; reentrant.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// From tokenizer.json, or where there is none from tokenizer.model with the added tokens and the
  /// flags of tokenizer_config.json.
  static Result<std::unique_ptr<const Tokenizer>> load(const std::string& directory,
                                                       const TokenizerOptions& options = {});

  /// Ids of `text`; special tokens written out in it become their ids. BOS in front as the
  /// tokenizer's flags say. Broken UTF-8 counts as U+FFFD, as Python's errors="replace" has it.
  virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  /// Whole text of `ids`, special tokens left out; broken UTF-8 becomes U+FFFD as the reference
  /// does it.
  virtual std::string decode(std::span<const int64_t> ids) const = 0;
  /// Bytes that one id adds inside a text (`▁` as a space, a byte piece as its byte); empty for
  /// special tokens.
  virtual std::string piece_bytes(int64_t id) const = 0;
  /// Whether the piece stands for one byte of a character.
  virtual bool is_byte([[maybe_unused]] int64_t id) const { return false; }
  /// The same as piece_bytes, but special tokens as they are written: what stop strings are
  /// compared with.
  virtual std::string token_text(int64_t id) const { return piece_bytes(id); }

  virtual bool is_special(int64_t id) const = 0;
  virtual std::optional<int64_t> id_of(std::string_view token) const = 0;
  virtual int64_t bos_id() const = 0;      ///< -1: none
  virtual int64_t eos_id() const = 0;      ///< -1: none
  virtual int64_t vocab_size() const = 0;  ///< added tokens included
  /// Whether decode drops one space in front of the whole text.
  virtual bool strips_first_space() const { return true; }
  /// Whether decode keeps the characters in a run of byte pieces that holds other bytes, too.
  virtual bool reads_bytes_apart() const { return false; }
};

/// Turns a growing list of ids into text that only ever grows, by whole UTF-8 characters, and stays
/// a prefix of what Tokenizer::decode makes of all ids. A run of byte pieces is held back until it
/// ends: one byte that fits no character may turn the whole run into U+FFFD. Thread-bound.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer);
  /// Adds one id; returns what became certain (may be empty).
  std::string push(int64_t id);
  /// Everything certain so far.
  const std::string& text() const { return text_; }

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // the current run of byte pieces
  bool at_start_;        // the space in front of the text is still to be dropped
  std::string text_;
};

}  // namespace vlm
