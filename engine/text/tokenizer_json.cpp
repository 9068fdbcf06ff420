// SPDX-License-Identifier: LGPL-2.1-or-later
#include <unordered_map>

#include "base/json.h"
#include "text/token_settings.h"
#include "text/tokenizer_rules.h"

namespace vlm {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr int64_t kMaxId = int64_t{1} << 24;
constexpr const char* kSpaceMark = "▁";

using PieceIds = std::unordered_map<std::string_view, int32_t>;

PieceIds read_vocabulary(const JsonView& model, BpeModel& bpe) {
  const auto vocabulary = model.object("vocab");
  if (!vocabulary) model.refuse("vocab", "a table of pieces and ids is expected");
  PieceIds ids;
  for (const auto& [piece, value] : vocabulary->json().items()) {
    const int64_t id = vocabulary->integer(piece, -1, 0, kMaxId);
    if (id < 0 || piece.empty()) vocabulary->refuse(piece, "an id is expected");
    if (static_cast<size_t>(id) >= bpe.pieces.size()) bpe.pieces.resize(id + 1);
    if (!bpe.pieces[id].empty()) vocabulary->refuse(piece, "an id of its own is expected");
    bpe.pieces[id] = piece;
  }
  ids.reserve(bpe.pieces.size());
  for (size_t id = 0; id < bpe.pieces.size(); ++id) {
    if (!bpe.pieces[id].empty()) ids.emplace(bpe.pieces[id], static_cast<int32_t>(id));
  }
  return ids;
}

/// Left and right of one merge: "left right", or a list of both.
std::pair<std::string, std::string> merge_sides(const JsonView& model, const Json& entry) {
  if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
    return {entry[0].get<std::string>(), entry[1].get<std::string>()};
  }
  if (entry.is_string()) {
    const auto& text = entry.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  model.refuse("merges", "pairs of pieces are expected");
}

void read_merges(const JsonView& model, const PieceIds& ids, BpeModel& bpe) {
  const Json* merges = model.find("merges");
  if (!merges || !merges->is_array()) model.refuse("merges", "a list of pairs is expected");
  for (const Json& entry : *merges) {
    const auto [left, right] = merge_sides(model, entry);
    for (const std::string& piece : {left, right, left + right}) {
      if (ids.contains(piece)) continue;
      throw Failure(ErrorKind::kInvalidModel,
                    model.file() + ": model.merges joins " + json_excerpt(entry) + ", but " +
                        json_excerpt(Json(piece)) + " is not in model.vocab");
    }
    bpe.merges.emplace_back(ids.at(left), ids.at(right));
  }
}

PieceIds read_model(const JsonView& model, BpeModel& bpe) {
  if (model.string("type", "BPE") != "BPE") model.unsupported("type", "BPE is supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string(key, "").empty()) model.unsupported(key, "none is supported");
  }
  if (model.number("dropout", 0, 0, 1) != 0) model.unsupported("dropout", "none is supported");
  PieceIds ids = read_vocabulary(model, bpe);
  read_merges(model, ids, bpe);
  bpe.byte_fallback = model.boolean("byte_fallback", false);
  bpe.fuse_unk = model.boolean("fuse_unk", false);
  bpe.ignore_merges = model.boolean("ignore_merges", false);
  if (const auto unknown = model.string("unk_token")) {
    const auto found = ids.find(*unknown);
    if (found == ids.end()) model.refuse("unk_token", "a piece of model.vocab is expected");
    bpe.unk_id = found->second;
  }
  return ids;
}

/// The steps of a block that is one step or a sequence of them; empty where it is null.
std::vector<JsonView> steps_of(const JsonView& view, const char* key, const char* list_key) {
  std::vector<JsonView> steps;
  const auto block = view.object(key);
  if (!block) return steps;
  if (block->string("type", "") != "Sequence") return {*block};
  const Json* list = block->find(list_key);
  if (!list || !list->is_array()) block->refuse(list_key, "a list of steps is expected");
  for (const Json& entry : *list) steps.emplace_back(entry, view.file(), key);
  return steps;
}

bool replaces(const JsonView& step, const std::string& from, const std::string& to) {
  const auto pattern = step.object("pattern");
  return step.string("type", "") == "Replace" && pattern && pattern->string("String", "") == from &&
         step.string("content", "") == to;
}

/// How spaces are marked: by a normaliser, or by a Metaspace pre-tokeniser that does not split.
PrefixScheme read_prefix(const JsonView& view) {
  constexpr const char* kKnown =
      "the steps of Llama tokenizers are supported: Prepend, Replace, Metaspace without split";
  bool prepends = false, marks = false;
  for (const JsonView& step : steps_of(view, "normalizer", "normalizers")) {
    if (step.string("type", "") == "Prepend" && step.string("prepend", "") == kSpaceMark &&
        !marks) {
      prepends = true;
    } else if (replaces(step, " ", kSpaceMark)) {
      marks = true;
    } else {
      step.unsupported("type", kKnown);
    }
  }
  const auto steps = steps_of(view, "pre_tokenizer", "pretokenizers");
  if (steps.empty() && marks) return prepends ? PrefixScheme::kEverywhere : PrefixScheme::kNever;
  if (steps.size() != 1 || marks || prepends) view.unsupported("pre_tokenizer", kKnown);
  const JsonView& step = steps[0];
  if (step.string("type", "") != "Metaspace" || step.string("replacement", "") != kSpaceMark) {
    step.unsupported("type", kKnown);
  }
  if (step.boolean("split", true)) step.unsupported("split", kKnown);
  const std::string scheme =
      step.string("prepend_scheme", step.boolean("add_prefix_space", true) ? "always" : "never");
  if (scheme == "first") return PrefixScheme::kFirst;
  if (scheme == "always") return PrefixScheme::kAlways;
  if (scheme != "never") step.refuse("prepend_scheme", "first, always or never is expected");
  return PrefixScheme::kNever;
}

void read_decoder(const JsonView& view, TokenizerRules& rules) {
  constexpr const char* kKnown =
      "the steps of Llama tokenizers are supported: Replace, ByteFallback, Fuse, Strip";
  rules.decode_bytes = rules.decode_strip = false;
  bool marks = false, fused = false;
  for (const JsonView& step : steps_of(view, "decoder", "decoders")) {
    const std::string type = step.string("type", "");
    if (!marks && replaces(step, kSpaceMark, " ")) {
      marks = true;
    } else if (marks && type == "ByteFallback") {
      rules.decode_bytes = true;
    } else if (marks && type == "Fuse") {
      fused = true;
    } else if (fused && type == "Strip" && step.string("content", "") == " " &&
               step.integer("start", 0, 0, 9) == 1 && step.integer("stop", 0, 0, 9) == 0) {
      rules.decode_strip = true;
    } else {
      step.unsupported("type", kKnown);
    }
  }
  if (!marks) view.unsupported("decoder", kKnown);
}

/// Ids in front of and behind the text, from the template for a single text.
void read_template(const JsonView& view, TokenizerRules& rules) {
  const auto processor = view.object("post_processor");
  if (!processor) return;
  if (processor->string("type", "") != "TemplateProcessing") {
    processor->unsupported("type", "TemplateProcessing is supported");
  }
  const Json* single = processor->find("single");
  const auto table = processor->object("special_tokens");
  if (!single || !single->is_array()) processor->refuse("single", "a list is expected");
  bool behind = false;
  for (const Json& entry : *single) {
    const JsonView item(entry, view.file(), "post_processor.single");
    if (item.has("Sequence")) {
      behind = true;
      continue;
    }
    const auto special = item.object("SpecialToken");
    const auto token = special && table ? table->object(special->string("id", "")) : std::nullopt;
    const Json* ids = token ? token->find("ids") : nullptr;
    if (!ids || !ids->is_array()) processor->refuse("single", "tokens with ids are expected");
    for (const Json& id : *ids) {
      const auto value = whole_number(id, 0, kMaxId);
      if (!value) processor->refuse("special_tokens", "token ids are expected");
      (behind ? rules.after : rules.before).push_back(*value);
    }
  }
}

void read_added(const JsonView& view, AddedTokenList& list) {
  const Json* added = view.find("added_tokens");
  if (!added) return;
  if (!added->is_array()) view.refuse("added_tokens", "a list is expected");
  for (const Json& entry : *added) {
    const JsonView item(entry, view.file(), "added_tokens");
    const auto wanted = item.integer("id", 0, kMaxId);
    const int64_t id = list.add(read_added_token(item));
    if (wanted && id != *wanted) {
      item.refuse("id", "that of the vocabulary, or the next free one, is expected, which is " +
                            std::to_string(id));
    }
  }
}

}  // namespace

TokenizerRules rules_from_tokenizer_json(const std::string& directory,
                                         const TokenizerOptions& options) {
  const std::string path = directory + "/tokenizer.json";
  const Json json = read_json_file(path, kMaxFileBytes);
  const JsonView view(json, path);
  const auto model = view.object("model");
  if (!model) view.refuse("model", "an object is expected");
  TokenizerRules rules;
  const PieceIds ids = read_model(*model, rules.bpe);
  rules.prefix = read_prefix(view);
  read_decoder(view, rules);
  read_template(view, rules);

  const auto find_piece = [&](std::string_view text) -> std::optional<int64_t> {
    const auto found = ids.find(text);
    return found == ids.end() ? std::nullopt : std::optional<int64_t>(found->second);
  };
  AddedTokenList list(find_piece, static_cast<int64_t>(rules.bpe.pieces.size()));
  read_added(view, list);
  const TokenSettings settings(directory);
  settings.add_to(list);
  list.add_specials(options.extra, false);
  rules.added = list.take();
  for (const AddedToken& token : rules.added) {
    if (token.text == settings.named("bos_token")) rules.bos_id = token.id;
    if (token.text == settings.named("eos_token")) rules.eos_id = token.id;
  }
  return rules;
}

}  // namespace vlm
