// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/failure.h"

namespace vlm::jinja {

/// A stretch of a template's source.
struct Token {
  enum class Kind {
    kText,      ///< printed as it is; white space control is done already
    kBlock,     ///< `{%`
    kBlockEnd,  ///< `%}`
    kPrint,     ///< `{{`
    kPrintEnd,  ///< `}}`
    kName,
    kString,  ///< `text` has its escapes resolved
    kInteger,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;
  size_t line = 1;
};

/// "FILE: line N: …" as kUnsupported.
Failure unsupported(const std::string& file, size_t line, const std::string& message);

/// Splits a template as Hugging Face's environment does (trim_blocks, lstrip_blocks, no line break
/// at the end of the file); the last token is kEnd. Throws Failure, naming `file` and the line, for
/// what can't be a template or is none of the supported spellings.
std::vector<Token> tokens_of(std::string_view source, const std::string& file);

}  // namespace vlm::jinja
