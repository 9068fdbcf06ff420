// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace vlm {

/// Pieces of text by id, and which neighbours join into which piece, best pair first.
struct BpeModel {
  std::vector<std::string> pieces;  ///< by id; an empty one is no piece
  /// Ids of left and right, in the order of their rank. Their texts joined must be a piece.
  std::vector<std::pair<int32_t, int32_t>> merges;
  bool byte_fallback = true;      ///< unknown characters become `<0xNN>` pieces where all exist
  std::optional<int32_t> unk_id;  ///< else they become this, or nothing
  bool fuse_unk = true;           ///< neighbouring unknown characters become one
  bool ignore_merges = false;     ///< a text that is a piece as a whole is that piece
};

/// Every way to split a piece into two pieces, ranked by the joined piece's id and then by the
/// length of the left one: how the reference derives merges from a sentencepiece model. Pieces
/// longer than `max_bytes` are left out. Reentrant.
std::vector<std::pair<int32_t, int32_t>> derive_merges(const std::vector<std::string>& pieces,
                                                       size_t max_bytes);

/// Byte-pair encoding of one segment of text. Constant after construction; reentrant.
class Bpe {
 public:
  /// Merges whose joined text is no piece are left out.
  explicit Bpe(BpeModel model);

  /// Appends the ids of `text`, which is valid UTF-8.
  void encode(std::string_view text, std::vector<int64_t>& ids) const;

  std::optional<int32_t> id_of(std::string_view piece) const;
  const std::vector<std::string>& pieces() const { return model_.pieces; }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  struct Symbol {
    int32_t id;
    int32_t previous;  ///< -1: none
    int32_t next;      ///< -1: none
    bool alive;
  };
  struct Join;

  std::vector<Symbol> characters(std::string_view text) const;
  bool append_bytes(std::string_view character, std::vector<Symbol>& symbols) const;
  const Merge* merge_of(int32_t left, int32_t right) const;

  BpeModel model_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::vector<int32_t> byte_ids_;  ///< 256 of them; -1 where there is no such piece
};

}  // namespace vlm
