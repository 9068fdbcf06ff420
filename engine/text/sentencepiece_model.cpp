// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/sentencepiece_model.h"

#include <cstdint>
#include <string_view>
#include <unordered_set>

#include "base/json.h"
#include "text/utf8.h"

namespace vlm {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxPieces = size_t{1} << 22;
constexpr size_t kMaxPieceBytes = 4096;

/// Walks through the fields of one protocol buffer message.
class Message {
 public:
  enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  Message(std::string_view data, const std::string& file) : data_(data), file_(file) {}

  /// Goes on to the next field; false at the end.
  bool next() {
    if (data_.empty()) return false;
    const uint64_t tag = varint();
    field_ = tag >> 3;
    wire_ = static_cast<int>(tag & 7);
    if (wire_ == kVarint) {
      number_ = varint();
    } else if (wire_ == kBytes) {
      bytes_ = take(varint());
    } else if (wire_ == kFixed64 || wire_ == kFixed32) {
      bytes_ = take(wire_ == kFixed64 ? 8 : 4);
    } else {
      broken();
    }
    return true;
  }
  bool is(uint64_t field, int wire) const { return field_ == field && wire_ == wire; }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return bytes_; }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t byte = static_cast<unsigned char>(take(1)[0]);
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    broken();
  }
  std::string_view take(uint64_t size) {
    if (size > data_.size()) broken();
    const std::string_view taken = data_.substr(0, size);
    data_.remove_prefix(size);
    return taken;
  }
  [[noreturn]] void broken() const {
    throw Failure(ErrorKind::kInvalidModel,
                  file_ + ": is no sentencepiece model, or cut short; fetch the file again");
  }

  std::string_view data_;
  const std::string& file_;
  uint64_t field_ = 0;
  int wire_ = 0;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

SentencePiece read_piece(std::string_view data, const std::string& file, size_t id) {
  SentencePiece piece;
  uint64_t type = 1;
  for (Message message(data, file); message.next();) {
    if (message.is(1, Message::kBytes)) piece.text = message.bytes();
    if (message.is(3, Message::kVarint)) type = message.number();
  }
  const std::string name = file + ": piece " + std::to_string(id);
  if (type < 1 || type > 6) {
    throw Failure(ErrorKind::kInvalidModel,
                  name + " has the type " + std::to_string(type) + ", but 1 to 6 are expected");
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceBytes || !utf8_valid(piece.text)) {
    throw Failure(ErrorKind::kInvalidModel, name + " is no text of 1 to " +
                                                std::to_string(kMaxPieceBytes) +
                                                " bytes in UTF-8; the model is broken");
  }
  piece.type = static_cast<SentencePiece::Type>(type);
  return piece;
}

}  // namespace

std::vector<SentencePiece> read_sentencepiece_model(const std::string& path) {
  const std::string data = read_small_file(path, kMaxFileBytes);
  std::vector<SentencePiece> pieces;
  for (Message message(data, path); message.next();) {
    if (!message.is(1, Message::kBytes)) continue;
    if (pieces.size() == kMaxPieces) {
      throw Failure(ErrorKind::kInvalidModel,
                    path + ": holds more than " + std::to_string(kMaxPieces) + " pieces");
    }
    pieces.push_back(read_piece(message.bytes(), path, pieces.size()));
  }
  if (pieces.empty()) throw Failure(ErrorKind::kInvalidModel, path + ": holds no pieces");
  std::unordered_set<std::string_view> seen;
  for (const SentencePiece& piece : pieces) {
    if (!seen.insert(piece.text).second) {
      throw Failure(ErrorKind::kInvalidModel,
                    path + ": holds the piece " + Json(piece.text).dump() + " twice");
    }
  }
  return pieces;
}

}  // namespace vlm
