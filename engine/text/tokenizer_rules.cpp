// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/tokenizer_rules.h"

#include <unordered_map>

#include "base/json.h"
#include "text/sentencepiece_model.h"
#include "text/token_settings.h"

namespace vlm {
namespace {

constexpr size_t kMaxMergeBytes = 512;  // longer pieces are whole sentences, never met

void check_class(const JsonView& view) {
  static const char* const kKnown[] = {"LlamaTokenizer", "LlamaTokenizerFast", "TokenizersBackend",
                                       "PreTrainedTokenizerFast"};
  const auto name = view.string("tokenizer_class");
  if (!name) return;
  for (const char* known : kKnown) {
    if (*name == known) return;
  }
  view.unsupported("tokenizer_class", "LlamaTokenizer is supported");
}

std::optional<int64_t> id_among(const std::vector<AddedToken>& tokens,
                                const std::optional<std::string>& text) {
  for (const AddedToken& token : tokens) {
    if (text && token.text == *text) return token.id;
  }
  return std::nullopt;
}

void add_controls(const std::vector<SentencePiece>& pieces, AddedTokenList& list) {
  for (const SentencePiece& piece : pieces) {
    const bool control = piece.type == SentencePiece::Type::kControl;
    if (!control && piece.type != SentencePiece::Type::kUserDefined) continue;
    AddedToken token;
    token.text = piece.text;
    token.special = control;
    list.add_new(std::move(token));
  }
}

}  // namespace

TokenizerRules rules_from_sentencepiece(const std::string& directory,
                                        const TokenizerOptions& options) {
  const TokenSettings settings(directory);
  const JsonView view = settings.view();
  check_class(view);
  if (view.boolean("split_special_tokens", false)) {
    view.unsupported("split_special_tokens", "false is supported");
  }
  TokenizerRules rules;
  const auto pieces = read_sentencepiece_model(directory + "/tokenizer.model");
  std::unordered_map<std::string_view, int64_t> ids;
  for (const SentencePiece& piece : pieces) {
    ids.emplace(piece.text, static_cast<int64_t>(rules.bpe.pieces.size()));
    rules.bpe.pieces.push_back(piece.text);
  }
  rules.bpe.merges = derive_merges(rules.bpe.pieces, kMaxMergeBytes);

  const auto find_piece = [&](std::string_view text) -> std::optional<int64_t> {
    const auto found = ids.find(text);
    return found == ids.end() ? std::nullopt : std::optional(found->second);
  };
  AddedTokenList list(find_piece, static_cast<int64_t>(pieces.size()));
  settings.add_to(list);
  add_controls(pieces, list);
  list.add_specials(options.extra, false);
  rules.added = list.take();
  const bool current = options.reader == TokenizerReader::kCurrent;
  if (options.reader == TokenizerReader::kSlow4) {  // knows no normalisation
    for (AddedToken& token : rules.added) token.normalized = false;
    rules.spaces = Spaces::kPython;
  }
  rules.bos_id = id_among(rules.added, settings.named("bos_token"));
  rules.eos_id = id_among(rules.added, settings.named("eos_token"));
  if (rules.bos_id && view.boolean("add_bos_token", !current)) rules.before = {*rules.bos_id};
  if (rules.eos_id && view.boolean("add_eos_token", false)) rules.after = {*rules.eos_id};
  if (!current) {
    const bool legacy = view.boolean("legacy", true);
    rules.bytes_apart = options.reader == TokenizerReader::kSlow4;
    rules.prefix = legacy || options.reader == TokenizerReader::kFast4 ? PrefixScheme::kEverywhere
                                                                       : PrefixScheme::kText;
    return rules;
  }
  rules.decode_strip = view.boolean("add_prefix_space", true);
  if (!rules.decode_strip) {
    rules.prefix = PrefixScheme::kNever;
  } else {
    rules.prefix = view.boolean("legacy", false) ? PrefixScheme::kAlways : PrefixScheme::kFirst;
  }
  return rules;
}

}  // namespace vlm
