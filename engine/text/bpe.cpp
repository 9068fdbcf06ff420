// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/bpe.h"

#include <algorithm>
#include <cstdio>
#include <queue>

#include "text/utf8.h"

namespace vlm {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

std::vector<std::pair<int32_t, int32_t>> derive_merges(const std::vector<std::string>& pieces,
                                                       size_t max_bytes) {
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) ids.emplace(pieces[id], static_cast<int32_t>(id));
  std::vector<std::pair<int32_t, int32_t>> merges;
  for (const std::string_view piece : pieces) {
    if (piece.size() > max_bytes) continue;
    for (size_t cut = utf8_length(piece); cut > 0 && cut < piece.size();) {
      const auto left = ids.find(piece.substr(0, cut));
      const auto right = left == ids.end() ? left : ids.find(piece.substr(cut));
      if (right != ids.end()) merges.emplace_back(left->second, right->second);
      const size_t step = utf8_length(piece.substr(cut));
      if (step == 0) break;
      cut += step;
    }
  }
  return merges;
}

/// A pair of neighbours that may join. Best first: low rank, then further left.
struct Bpe::Join {
  int32_t rank;
  int32_t position;
  int32_t id;
  bool operator<(const Join& other) const {
    return std::pair(rank, position) > std::pair(other.rank, other.position);
  }
};

Bpe::Bpe(BpeModel model) : model_(std::move(model)), byte_ids_(256, -1) {
  ids_.reserve(model_.pieces.size());
  for (size_t id = 0; id < model_.pieces.size(); ++id) {
    if (!model_.pieces[id].empty()) ids_.emplace(model_.pieces[id], static_cast<int32_t>(id));
  }
  merges_.reserve(model_.merges.size());
  int32_t rank = 0;
  for (const auto& [left, right] : model_.merges) {
    const auto joined = id_of(model_.pieces[left] + model_.pieces[right]);
    if (joined) merges_[pair_key(left, right)] = Merge{rank, *joined};
    ++rank;
  }
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    byte_ids_[byte] = id_of(name).value_or(-1);
  }
}

std::optional<int32_t> Bpe::id_of(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const Bpe::Merge* Bpe::merge_of(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

bool Bpe::append_bytes(std::string_view character, std::vector<Symbol>& symbols) const {
  if (!model_.byte_fallback) return false;
  for (const char byte : character) {
    if (byte_ids_[static_cast<unsigned char>(byte)] < 0) return false;
  }
  for (const char byte : character) {
    symbols.push_back({byte_ids_[static_cast<unsigned char>(byte)], -1, -1, true});
  }
  return true;
}

std::vector<Bpe::Symbol> Bpe::characters(std::string_view text) const {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  bool unknown = false;  // one is waiting to be appended
  const auto flush = [&] {
    if (unknown) symbols.push_back({*model_.unk_id, -1, -1, true});
    unknown = false;
  };
  while (!text.empty()) {
    const std::string_view character = text.substr(0, std::max<size_t>(1, utf8_length(text)));
    text.remove_prefix(character.size());
    if (const auto id = id_of(character)) {
      flush();
      symbols.push_back({*id, -1, -1, true});
    } else if (!append_bytes(character, symbols) && model_.unk_id) {
      if (!model_.fuse_unk) flush();
      unknown = true;
    }
  }
  flush();
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
  return symbols;
}

void Bpe::encode(std::string_view text, std::vector<int64_t>& ids) const {
  if (model_.ignore_merges) {
    if (const auto whole = id_of(text)) return ids.push_back(*whole);
  }
  std::vector<Symbol> symbols = characters(text);
  std::priority_queue<Join> joins;
  const auto offer = [&](int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const Merge* merge = merge_of(symbols[left].id, symbols[symbols[left].next].id);
    if (merge) joins.push({merge->rank, left, merge->id});
  };
  for (size_t i = 0; i < symbols.size(); ++i) offer(static_cast<int32_t>(i));
  while (!joins.empty()) {
    const Join join = joins.top();
    joins.pop();
    Symbol& left = symbols[join.position];
    if (!left.alive || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // An offer is out of date where its neighbours no longer join into the same piece.
    const Merge* merge = merge_of(left.id, right.id);
    if (!merge || merge->id != join.id) continue;
    left.id = join.id;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) symbols[left.next].previous = join.position;
    offer(left.previous);
    offer(join.position);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.alive) ids.push_back(symbol.id);
  }
}

}  // namespace vlm
