// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "text/jinja/lexer.h"

namespace vlm::jinja {
namespace {

constexpr size_t kMaxDepth = 60;  // of blocks and brackets together
constexpr size_t kMaxExpression = 200;

using Kind = Expression::Kind;
using Named = std::vector<std::pair<std::string, ExpressionPtr>>;

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& file)
      : tokens_(std::move(tokens)), file_(file) {}

  std::vector<Node> run() {
    std::vector<Node> nodes = body();
    if (now().kind != Token::Kind::kEnd) fail("{% " + ahead(1).text + " %} belongs to nothing");
    return nodes;
  }

 private:
  /// Counts nesting while it lives.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.fail("it is nested too deeply");
    }
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };

  // ---- Tokens

  [[noreturn]] void fail(const std::string& message) const {
    throw unsupported(file_, now().line, message);
  }
  const Token& ahead(size_t count) const {
    return tokens_[std::min(at_ + count, tokens_.size() - 1)];
  }
  const Token& now() const { return ahead(0); }
  bool is(std::string_view text) const {
    return (now().kind == Token::Kind::kOperator || now().kind == Token::Kind::kName) &&
           now().text == text;
  }
  bool take(std::string_view text) {
    if (!is(text)) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view text) {
    if (!take(text)) fail(std::string(text) + " is expected" + found());
  }
  void expect(Token::Kind kind) {
    if (now().kind != kind) fail("the tag should end here" + found());
    ++at_;
  }
  std::string found() const { return now().text.empty() ? "" : " where " + now().text + " stands"; }
  std::string take_name() {
    if (now().kind != Token::Kind::kName) fail("a name is expected" + found());
    return tokens_[at_++].text;
  }

  // ---- Statements

  /// Nodes up to a block that starts with none of the known statements (endif, else …).
  std::vector<Node> body() {
    const Level level(*this);
    std::vector<Node> nodes;
    for (;;) {
      Node node;
      node.line = now().line;
      if (now().kind == Token::Kind::kText) {
        node.text = tokens_[at_++].text;
      } else if (now().kind == Token::Kind::kPrint) {
        ++at_;
        node.kind = Node::Kind::kPrint;
        node.value = expression();
        expect(Token::Kind::kPrintEnd);
      } else if (now().kind != Token::Kind::kBlock || closes(ahead(1).text)) {
        return nodes;
      } else {
        ++at_;
        statement(node);
      }
      nodes.push_back(std::move(node));
    }
  }

  static bool closes(std::string_view name) {
    return name.starts_with("end") || name == "else" || name == "elif";
  }

  void statement(Node& node) {
    const std::string name = take_name();
    if (name == "if") return read_if(node);
    if (name == "for") return read_for(node);
    if (name == "set") return read_set(node);
    if (name == "generation") {  // labels the assistant's text, for training
      expect(Token::Kind::kBlockEnd);
      node.kind = Node::Kind::kScope;
      node.branches.push_back({nullptr, body()});
      return end("endgeneration");
    }
    if ((name == "break" || name == "continue") && loops_ > 0) {
      node.kind = name == "break" ? Node::Kind::kBreak : Node::Kind::kContinue;
      return expect(Token::Kind::kBlockEnd);
    }
    fail("{% " + name + " %} is not supported");
  }

  void end(std::string_view name) {
    if (now().kind != Token::Kind::kBlock || ahead(1).text != name) {
      fail("{% " + std::string(name) + " %} is missing");
    }
    at_ += 2;
    expect(Token::Kind::kBlockEnd);
  }

  /// Passes `{% name`, where it comes next.
  bool take_block(std::string_view name) {
    if (now().kind != Token::Kind::kBlock || ahead(1).text != name) return false;
    at_ += 2;
    return true;
  }

  void read_if(Node& node) {
    node.kind = Node::Kind::kIf;
    do {
      ExpressionPtr condition = expression();
      expect(Token::Kind::kBlockEnd);
      node.branches.push_back({std::move(condition), body()});
    } while (take_block("elif"));
    if (take_block("else")) {
      expect(Token::Kind::kBlockEnd);
      node.otherwise = body();
    }
    end("endif");
  }

  void read_for(Node& node) {
    node.kind = Node::Kind::kFor;
    node.text = take_name();
    if (is(",")) fail("{% for %} over several names at once is not supported");
    expect("in");
    node.value = either();
    if (take("if")) node.filter = expression();
    if (is("recursive")) fail("a recursive {% for %} is not supported");
    expect(Token::Kind::kBlockEnd);
    ++loops_;
    node.branches.push_back({nullptr, body()});
    --loops_;
    if (take_block("else")) {
      expect(Token::Kind::kBlockEnd);
      node.otherwise = body();
    }
    end("endfor");
  }

  void read_set(Node& node) {
    node.kind = Node::Kind::kSet;
    node.text = take_name();
    if (take(".")) node.attribute = take_name();
    if (!take("=")) fail("{% set %} without one name and one = is not supported");
    node.value = expression();
    if (is(",")) fail("{% set %} of several values is not supported");
    expect(Token::Kind::kBlockEnd);
  }

  // ---- Expressions, from the loosest to the tightest

  ExpressionPtr make(Kind kind, std::string name, std::vector<ExpressionPtr> operands,
                     Named named = {}, Json value = nullptr) const {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->line = now().line;
    made->name = std::move(name);
    made->operands = std::move(operands);
    made->named = std::move(named);
    made->value = std::move(value);
    // Chains nest, too: what evaluates and frees them recurses.
    for (const ExpressionPtr& part : made->operands) {
      if (part) made->depth = std::max(made->depth, part->depth + 1);
    }
    for (const auto& [key, part] : made->named)
      made->depth = std::max(made->depth, part->depth + 1);
    if (made->depth > kMaxExpression) fail("an expression is too long");
    return made;
  }
  static std::vector<ExpressionPtr> pair(ExpressionPtr first, ExpressionPtr second) {
    std::vector<ExpressionPtr> both;
    both.push_back(std::move(first));
    both.push_back(std::move(second));
    return both;
  }
  ExpressionPtr make(Kind kind, std::string name, ExpressionPtr operand) const {
    std::vector<ExpressionPtr> one;
    one.push_back(std::move(operand));
    return make(kind, std::move(name), std::move(one));
  }

  ExpressionPtr expression() {
    const Level level(*this);
    ExpressionPtr value = either();
    while (take("if")) {
      std::vector<ExpressionPtr> parts = pair(either(), std::move(value));
      parts.push_back(take("else") ? expression() : nullptr);
      value = make(Kind::kConditional, "", std::move(parts));
    }
    return value;
  }

  /// A chain of operators of one precedence.
  template <typename Next>
  ExpressionPtr chain(std::initializer_list<std::string_view> names, Kind kind, Next next) {
    ExpressionPtr value = next();
    for (;;) {
      const auto name = std::find_if(names.begin(), names.end(),
                                     [this](std::string_view candidate) { return is(candidate); });
      if (name == names.end()) return value;
      ++at_;
      value = make(kind, std::string(*name), pair(std::move(value), next()));
    }
  }

  ExpressionPtr either() {
    return chain({"or"}, Kind::kOr, [this] { return both(); });
  }
  ExpressionPtr both() {
    return chain({"and"}, Kind::kAnd, [this] { return negation(); });
  }
  ExpressionPtr negation() {
    const Level level(*this);
    if (take("not")) return make(Kind::kNot, "", negation());
    return comparison();
  }
  ExpressionPtr comparison() {
    std::vector<ExpressionPtr> operands;
    operands.push_back(sum());
    Json names = Json::array();
    for (std::string name; !(name = take_comparison()).empty();) {
      names.push_back(name);
      operands.push_back(sum());
    }
    if (names.empty()) return std::move(operands[0]);
    return make(Kind::kComparison, "", std::move(operands), {}, std::move(names));
  }
  std::string take_comparison() {
    for (const char* name : {"==", "!=", "<", "<=", ">", ">=", "in"}) {
      if (take(name)) return name;
    }
    if (!is("not") || ahead(1).text != "in") return "";
    at_ += 2;
    return "not in";
  }
  ExpressionPtr sum() {
    return chain({"+", "-"}, Kind::kOperation, [this] { return joined(); });
  }
  ExpressionPtr joined() {
    return chain({"~"}, Kind::kOperation, [this] { return product(); });
  }
  ExpressionPtr product() {
    return chain({"*", "//", "/", "%"}, Kind::kOperation, [this] { return sign(true); });
  }
  ExpressionPtr sign(bool with_filters) {
    const Level level(*this);
    ExpressionPtr value;
    if (take("-")) {
      value = make(Kind::kNegative, "", sign(false));
    } else {
      value = postfixes(take("+") ? sign(false) : primary());
    }
    if (is("**")) fail("the operator ** is not supported");
    return with_filters ? filters(std::move(value)) : std::move(value);
  }

  ExpressionPtr literal(Json value) const {
    return make(Kind::kLiteral, "", std::vector<ExpressionPtr>(), {}, std::move(value));
  }

  ExpressionPtr primary() {
    const Token token = now();
    if (token.kind == Token::Kind::kString) {
      std::string text;
      while (now().kind == Token::Kind::kString) text += tokens_[at_++].text;
      return literal(text);
    }
    if (token.kind == Token::Kind::kInteger) {
      int64_t number = 0;
      const char* stop = token.text.data() + token.text.size();
      if (std::from_chars(token.text.data(), stop, number).ec != std::errc()) {
        fail("the number " + token.text + " is too large");
      }
      ++at_;
      return literal(number);
    }
    if (take("(")) return parenthesis();
    if (take("[")) return make(Kind::kList, "", arguments("]", nullptr));
    const std::string name = now().kind == Token::Kind::kName ? take_name() : "";
    if (name.empty()) fail("a value is expected" + found());
    if (name == "true" || name == "True") return literal(true);
    if (name == "false" || name == "False") return literal(false);
    if (name == "none" || name == "None") return literal(nullptr);
    if (!take("(")) return make(Kind::kName, name, std::vector<ExpressionPtr>());
    return call(Kind::kFunction, name, {});
  }

  /// What stands in brackets: a value, or a tuple, which behaves like a list.
  ExpressionPtr parenthesis() {
    std::vector<ExpressionPtr> values;
    bool tuple = is(")");
    while (!is(")")) {
      values.push_back(expression());
      if (!take(",")) break;
      tuple = true;
    }
    expect(")");
    return tuple ? make(Kind::kList, "", std::move(values)) : std::move(values[0]);
  }

  /// Values up to `close`; those with names go into `named`, where there may be some.
  std::vector<ExpressionPtr> arguments(std::string_view close, Named* named) {
    std::vector<ExpressionPtr> values;
    while (!is(close)) {
      if (named && now().kind == Token::Kind::kName && ahead(1).text == "=" &&
          ahead(1).kind == Token::Kind::kOperator) {
        const std::string name = take_name();
        ++at_;
        named->emplace_back(name, expression());
      } else {
        values.push_back(expression());
      }
      if (!take(",")) break;
    }
    expect(close);
    return values;
  }

  /// Behind the opening bracket of a call; `operands` starts with what the call belongs to.
  ExpressionPtr call(Kind kind, const std::string& name, std::vector<ExpressionPtr> operands) {
    Named named;
    for (ExpressionPtr& value : arguments(")", &named)) operands.push_back(std::move(value));
    return make(kind, name, std::move(operands), std::move(named));
  }

  ExpressionPtr postfixes(ExpressionPtr value) {
    for (;;) {
      if (take("[")) {
        value = subscript(std::move(value));
      } else if (take(".")) {
        const std::string name = take_name();
        std::vector<ExpressionPtr> first;
        first.push_back(std::move(value));
        value = take("(") ? call(Kind::kMethod, name, std::move(first))
                          : make(Kind::kAttribute, name, std::move(first));
      } else if (is("(")) {
        fail("a call of what is no name is not supported");
      } else {
        return value;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr value) {
    std::vector<ExpressionPtr> parts;
    parts.push_back(std::move(value));
    do {
      parts.push_back(is(":") || is("]") ? nullptr : expression());
    } while (take(":"));
    expect("]");
    if (parts.size() == 2 && parts[1]) return make(Kind::kItem, "", std::move(parts));
    if (parts.size() == 2 || parts.size() > 4) fail("an index is expected");
    parts.resize(4);
    return make(Kind::kSlice, "", std::move(parts));
  }

  ExpressionPtr filters(ExpressionPtr value) {
    for (;;) {
      std::vector<ExpressionPtr> first;
      if (take("|")) {
        const std::string name = take_name();
        if (is(".")) fail("filters of a library are not supported");
        first.push_back(std::move(value));
        value = take("(") ? call(Kind::kFilter, name, std::move(first))
                          : make(Kind::kFilter, name, std::move(first));
      } else if (take("is")) {
        const bool negated = take("not");
        const std::string name = take_name();
        first.push_back(std::move(value));
        value = take("(") ? call(Kind::kTest, name, std::move(first))
                          : make(Kind::kTest, name, with_operand(std::move(first)));
        if (negated) value = make(Kind::kNot, "", std::move(value));
      } else {
        return value;
      }
    }
  }

  /// A test may take its one argument without brackets.
  std::vector<ExpressionPtr> with_operand(std::vector<ExpressionPtr> operands) {
    const bool value = now().kind == Token::Kind::kString || now().kind == Token::Kind::kInteger ||
                       now().kind == Token::Kind::kName || is("[");
    if (value && !is("else") && !is("or") && !is("and")) {
      operands.push_back(postfixes(primary()));
    }
    return operands;
  }

  const std::vector<Token> tokens_;
  const std::string& file_;
  size_t at_ = 0;
  size_t depth_ = 0;
  size_t loops_ = 0;
};

}  // namespace

std::vector<Node> parse(std::string_view source, const std::string& file) {
  return Parser(tokens_of(source, file), file).run();
}

}  // namespace vlm::jinja
