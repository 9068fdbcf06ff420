// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer_rules.h"
#include "text/utf8.h"

namespace vlm {
namespace {

constexpr std::string_view kSpaceMark = "▁";

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (;;) {
    const size_t found = text.find(from);
    result += text.substr(0, found);
    if (found == std::string_view::npos) return result;
    result += to;
    text.remove_prefix(found + from.size());
  }
}

/// The byte that a piece of the form <0xNN> stands for.
std::optional<char> piece_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  int value = 0;
  for (const char digit : piece.substr(3, 2)) {
    const bool decimal = digit >= '0' && digit <= '9';
    const char letter = static_cast<char>(digit | 0x20);
    if (!decimal && (letter < 'a' || letter > 'f')) return std::nullopt;
    value = value * 16 + (decimal ? digit - '0' : letter - 'a' + 10);
  }
  return static_cast<char>(value);
}

/// A run of byte pieces as text: all of it, or a U+FFFD for each of its bytes; with `apart` for
/// each byte that belongs to no character.
void flush_bytes(std::string& bytes, bool apart, std::string& text) {
  const bool whole = utf8_valid(bytes);
  for (std::string_view rest = bytes; !rest.empty();) {
    const size_t length = whole ? rest.size() : apart ? utf8_length(rest) : 0;
    text += length > 0 ? rest.substr(0, length) : kReplacement;
    rest.remove_prefix(std::max<size_t>(length, 1));
  }
  bytes.clear();
}

class LlamaTokenizer : public Tokenizer {
 public:
  explicit LlamaTokenizer(TokenizerRules rules)
      : rules_(std::move(rules)), bpe_(std::move(rules_.bpe)) {
    normalizes_ = rules_.prefix == PrefixScheme::kEverywhere;
    std::vector<AddedToken> raw, normalized;
    for (const AddedToken& token : rules_.added) {
      (token.normalized ? normalized : raw).push_back(token);
      const auto decoded = added_.emplace(token.id, token).first;
      if (normalizes_ && token.normalized) {
        // The reference decodes these as they are after normalisation, when it no longer knows them
        // as special.
        decoded->second.text = normalize(token.text);
        decoded->second.special = false;
      }
      added_ids_.emplace(token.text, token.id);
      size_ = std::max(size_, token.id + 1);
    }
    for (AddedToken& token : normalized) {
      if (normalizes_) token.text = normalize(token.text);
    }
    raw_finder_ = AddedTokenFinder(std::move(raw), rules_.spaces);
    normalized_finder_ = AddedTokenFinder(std::move(normalized), rules_.spaces);
    size_ = std::max(size_, static_cast<int64_t>(bpe_.pieces().size()));
  }

  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids = rules_.before;
    std::string changed;
    if (!utf8_valid(text)) text = changed = utf8_repaired(text);
    // The slow class reads a mark in the text as the space that it stands for, before all else.
    if (rules_.prefix == PrefixScheme::kText) text = changed = replaced(text, kSpaceMark, " ");
    encode_valid(text, ids);
    ids.insert(ids.end(), rules_.after.begin(), rules_.after.end());
    return ids;
  }

  std::string decode(std::span<const int64_t> ids) const override {
    std::string text, bytes;
    for (const int64_t id : ids) {
      if (is_special(id)) continue;
      const std::string_view piece = written(id);
      if (piece.empty()) continue;
      const auto byte = rules_.decode_bytes ? piece_byte(piece) : std::nullopt;
      if (byte) {
        bytes += *byte;
        continue;
      }
      flush_bytes(bytes, rules_.bytes_apart, text);
      text += replaced(piece, kSpaceMark, " ");
    }
    flush_bytes(bytes, rules_.bytes_apart, text);
    if (rules_.decode_strip && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

  std::string piece_bytes(int64_t id) const override {
    return is_special(id) ? std::string() : token_text(id);
  }

  bool is_byte(int64_t id) const override {
    return !is_special(id) && rules_.decode_bytes && piece_byte(written(id)).has_value();
  }

  std::string token_text(int64_t id) const override {
    const std::string_view piece = written(id);
    if (const auto byte = rules_.decode_bytes ? piece_byte(piece) : std::nullopt) {
      return std::string(1, *byte);
    }
    return replaced(piece, kSpaceMark, " ");
  }

  bool is_special(int64_t id) const override {
    const auto found = added_.find(id);
    return found != added_.end() && found->second.special;
  }

  std::optional<int64_t> id_of(std::string_view token) const override {
    const auto found = added_ids_.find(std::string(token));
    if (found != added_ids_.end()) return found->second;
    const auto piece = bpe_.id_of(token);
    return piece ? std::optional<int64_t>(*piece) : std::nullopt;
  }

  int64_t bos_id() const override { return rules_.bos_id.value_or(-1); }
  int64_t eos_id() const override { return rules_.eos_id.value_or(-1); }
  int64_t vocab_size() const override { return size_; }
  bool strips_first_space() const override { return rules_.decode_strip; }
  bool reads_bytes_apart() const override { return rules_.bytes_apart; }

 private:
  /// The piece or added token as it stands in the vocabulary; empty for unknown ids.
  std::string_view written(int64_t id) const {
    const auto found = added_.find(id);
    if (found != added_.end()) return found->second.text;
    const auto& pieces = bpe_.pieces();
    return id >= 0 && id < static_cast<int64_t>(pieces.size()) ? std::string_view(pieces[id])
                                                               : std::string_view();
  }

  static std::string normalize(std::string_view text) {
    return std::string(kSpaceMark) + replaced(text, " ", kSpaceMark);
  }

  void encode_valid(std::string_view text, std::vector<int64_t>& ids) const {
    for (const TextPart& part : raw_finder_.split(text)) {
      if (part.id >= 0) {
        if (part.text.data() == text.data()) encode_lone_mark(part.id, ids);
        ids.push_back(part.id);
      } else {
        encode_part(part.text, part.text.data() == text.data(), ids);
      }
    }
  }

  /// The mark in front of a text that begins with the token `id`: the slow class drops it only
  /// before tokens that have a role.
  void encode_lone_mark(int64_t id, std::vector<int64_t>& ids) const {
    if (rules_.prefix == PrefixScheme::kText && !added_.at(id).named) bpe_.encode(kSpaceMark, ids);
  }

  /// `first`: the part starts the whole text.
  void encode_part(std::string_view part, bool first, std::vector<int64_t>& ids) const {
    const std::string normal = normalizes_ ? normalize(part) : std::string(part);
    for (const TextPart& piece : normalized_finder_.split(normal)) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
      } else if (normalizes_) {
        bpe_.encode(piece.text, ids);
      } else {
        encode_plain(piece.text, first && piece.text.data() == normal.data(), ids);
      }
    }
  }

  void encode_plain(std::string_view text, bool first, std::vector<int64_t>& ids) const {
    std::string marked = replaced(text, " ", kSpaceMark);
    const bool wanted =
        rules_.prefix == PrefixScheme::kAlways || (rules_.prefix == PrefixScheme::kFirst && first);
    const bool anyway = rules_.prefix == PrefixScheme::kText && first;
    if (anyway || (wanted && !marked.starts_with(kSpaceMark))) marked.insert(0, kSpaceMark);
    bpe_.encode(marked, ids);
  }

  TokenizerRules rules_;  // but for the model, which lies in bpe_
  Bpe bpe_;
  bool normalizes_ = false;  // spaces are marked before normalised tokens are cut out
  AddedTokenFinder raw_finder_, normalized_finder_;
  std::unordered_map<int64_t, AddedToken> added_;
  std::unordered_map<std::string, int64_t> added_ids_;
  int64_t size_ = 0;
};

}  // namespace

Result<std::unique_ptr<const Tokenizer>> Tokenizer::load(const std::string& directory,
                                                         const TokenizerOptions& options) {
  return as_result([&]() -> std::unique_ptr<const Tokenizer> {
    const bool model = file_exists(directory + "/tokenizer.model");
    const bool json = file_exists(directory + "/tokenizer.json");
    if (json && !(model && options.reader == TokenizerReader::kSlow4)) {
      return std::make_unique<LlamaTokenizer>(rules_from_tokenizer_json(directory, options));
    }
    if (model) {
      return std::make_unique<LlamaTokenizer>(rules_from_sentencepiece(directory, options));
    }
    throw Failure(ErrorKind::kNotFound,
                  directory +
                      ": holds no tokenizer: neither tokenizer.model nor tokenizer.json is "
                      "there; copy it from the checkpoint's source");
  });
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), at_start_(tokenizer.strips_first_space()) {}

std::string StreamDecoder::push(int64_t id) {
  const std::string piece = tokenizer_.piece_bytes(id);
  if (tokenizer_.is_byte(id)) {
    pending_ += piece;
    return {};
  }
  if (piece.empty()) return {};
  std::string fresh;
  flush_bytes(pending_, tokenizer_.reads_bytes_apart(), fresh);
  fresh += piece;
  if (at_start_) {
    at_start_ = false;
    if (fresh.starts_with(' ')) fresh.erase(0, 1);
  }
  text_ += fresh;
  return fresh;
}

}  // namespace vlm
