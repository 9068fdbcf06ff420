// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace vlm::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

/// A value, or how one comes about.
struct Expression {
  enum class Kind {
    kLiteral,      ///< value
    kName,         ///< name
    kList,         ///< operands
    kAttribute,    ///< operands[0].name
    kItem,         ///< operands[0][operands[1]]
    kSlice,        ///< operands[0][operands[1]:operands[2]:operands[3]], null where left out
    kFunction,     ///< name(operands, named)
    kMethod,       ///< operands[0].name(operands[1…])
    kFilter,       ///< operands[0]|name(operands[1…], named)
    kTest,         ///< operands[0] is name(operands[1…])
    kNot,          ///< not operands[0]
    kNegative,     ///< -operands[0]
    kAnd,          ///< operands[0] and operands[1]
    kOr,           ///< operands[0] or operands[1]
    kOperation,    ///< operands[0] name operands[1], name being + - * / // % ~
    kComparison,   ///< operands[0] value[0] operands[1] value[1] …; == != < <= > >= in, not in
    kConditional,  ///< operands[1] if operands[0] else operands[2], which may be null
  };
  Kind kind = Kind::kLiteral;
  size_t line = 1;
  size_t depth = 1;  ///< of the expressions in it
  std::string name;
  Json value;
  std::vector<ExpressionPtr> operands;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Node;

struct Branch {
  ExpressionPtr condition;
  std::vector<Node> body;
};

/// A part of a template.
struct Node {
  enum class Kind {
    kText,      ///< text
    kPrint,     ///< value
    kIf,        ///< the first branch that holds, else `otherwise`
    kFor,       ///< branches[0].body for each `text` of `value` for which `filter` holds
    kSet,       ///< text (or text.attribute) = value
    kScope,     ///< branches[0].body
    kBreak,     ///< leaves the innermost loop
    kContinue,  ///< goes on with the innermost loop's next element
  };
  Kind kind = Kind::kText;
  size_t line = 1;
  std::string text;
  std::string attribute;
  ExpressionPtr value;
  ExpressionPtr filter;
  std::vector<Branch> branches;
  std::vector<Node> otherwise;
};

/// Reads the part of Jinja that chat templates use: if, for, set, generation, break, continue,
/// comments and expressions. Nesting is bounded. Throws Failure of kUnsupported, naming `file`, the
/// line and what is not supported.
std::vector<Node> parse(std::string_view source, const std::string& file);

}  // namespace vlm::jinja
