// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>
#include <vector>

namespace vlm {

/// A piece of a sentencepiece model; its id is its place.
struct SentencePiece {
  enum class Type {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  std::string text;
  Type type = Type::kNormal;
};

/// The pieces of an untrusted sentencepiece model file. The reference takes only these from it and
/// joins them by its own rules, so sentencepiece's segmenter would give other ids; and its library
/// does not tell which pieces are user-defined. Throws Failure.
std::vector<SentencePiece> read_sentencepiece_model(const std::string& path);

}  // namespace vlm
