// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "text/utf8.h"

namespace vlm::jinja {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/// Every line break as `\n`, and none at the end.
std::string with_plain_breaks(std::string_view source) {
  std::string plain;
  plain.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    plain += source[i] == '\r' ? '\n' : source[i];
  }
  if (plain.ends_with('\n')) plain.pop_back();
  return plain;
}

void append_character(uint32_t code, std::string& text) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& file)
      : source_(with_plain_breaks(source)), rest_(source_), file_(file) {}

  std::vector<Token> run() {
    if (!utf8_valid(source_)) fail("the template is no valid UTF-8");
    while (!rest_.empty()) {
      size_t open = rest_.find('{');
      while (open != rest_.npos && !opens(open)) open = rest_.find('{', open + 1);
      read_text(open == rest_.npos ? rest_.size() : open);
      if (!rest_.empty()) read_tag();
    }
    add(Token::Kind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw unsupported(file_, line_, message);
  }

  bool opens(size_t at) const {
    const std::string_view mark = rest_.substr(at, 2);
    return mark == "{{" || mark == "{%" || mark == "{#";
  }

  void add(Token::Kind kind, std::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }

  void skip(size_t count) {
    if (count == 0) return;
    line_ += static_cast<size_t>(std::count(rest_.begin(), rest_.begin() + count, '\n'));
    at_line_start_ = rest_[count - 1] == '\n';
    rest_.remove_prefix(count);
  }

  /// Text up to the tag at `length`, less the white space that the tag takes.
  void read_text(size_t length) {
    std::string_view text = rest_.substr(0, length);
    const char kind = length + 1 < rest_.size() ? rest_[length + 1] : 0;
    const char sign = length + 2 < rest_.size() ? rest_[length + 2] : 0;
    const size_t line_start = text.rfind('\n') + 1;  // npos + 1 is 0
    if (kind && sign == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    } else if ((kind == '%' || kind == '#') && sign != '+' && (line_start > 0 || at_line_start_) &&
               std::all_of(text.begin() + line_start, text.end(), is_space)) {
      text = text.substr(0, line_start);
    }
    if (!text.empty()) add(Token::Kind::kText, text);
    skip(length);
  }

  void read_tag() {
    const char kind = rest_[1];
    skip(rest_.size() > 2 && (rest_[2] == '-' || rest_[2] == '+') ? 3 : 2);
    if (kind == '#') {
      const size_t close = rest_.find("#}");
      if (close == rest_.npos) fail("the comment has no end");
      skip(close - (close > 0 && (rest_[close - 1] == '-' || rest_[close - 1] == '+')));
      read_close('#');
      return;
    }
    add(kind == '%' ? Token::Kind::kBlock : Token::Kind::kPrint, {});
    size_t depth = 0;  // of brackets, in which no tag ends
    while (depth > 0 || !read_close(kind == '%' ? '%' : '}')) {
      if (rest_.empty()) fail("the tag has no end");
      read_code(depth);
    }
    add(kind == '%' ? Token::Kind::kBlockEnd : Token::Kind::kPrintEnd, {});
  }

  /// The end of a tag with the white space that goes with it, where `rest_` starts with one.
  bool read_close(char kind) {
    const char close[] = {kind, '}', 0};
    const bool sign = rest_.starts_with('-') || (kind != '}' && rest_.starts_with('+'));
    if (!rest_.substr(sign).starts_with(close)) return false;
    const bool strips = sign && rest_[0] == '-';
    size_t length = 2 + sign;
    if (strips) {
      while (length < rest_.size() && is_space(rest_[length])) ++length;
    } else if (!sign && kind != '}' && length < rest_.size() && rest_[length] == '\n') {
      ++length;
    }
    skip(length);
    return true;
  }

  void read_code(size_t& depth) {
    static constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const char c = rest_[0];
    size_t length = 1;
    if (is_space(c)) return skip(1);
    if (c == '\'' || c == '"') return read_string(c);
    if (starts_name(c) || is_digit(c)) {
      while (length < rest_.size() && (starts_name(rest_[length]) || is_digit(rest_[length]))) {
        ++length;
      }
      const bool fraction = is_digit(c) && length + 1 < rest_.size() && rest_[length] == '.' &&
                            is_digit(rest_[length + 1]);
      const std::string_view word = rest_.substr(0, length);
      if (fraction || (is_digit(c) && !std::all_of(word.begin(), word.end(), is_digit))) {
        fail("only whole decimal numbers are supported");
      }
      add(is_digit(c) ? Token::Kind::kInteger : Token::Kind::kName, word);
      return skip(length);
    }
    for (const std::string_view candidate : kOperators) {
      if (!rest_.starts_with(candidate)) continue;
      if (c == '(' || c == '[' || c == '{') ++depth;
      if ((c == ')' || c == ']' || c == '}') && depth-- == 0) fail("a bracket closes nothing");
      add(Token::Kind::kOperator, candidate);
      return skip(candidate.size());
    }
    fail("the character " + std::string(rest_.substr(0, utf8_length(rest_))) +
         " has no meaning in a tag");
  }

  void read_string(char quote) {
    std::string text;
    size_t at = 1;
    while (at < rest_.size() && rest_[at] != quote) {
      if (rest_[at] == '\\' && at + 1 < rest_.size()) {
        at = read_escape(at + 1, text);
      } else {
        text += rest_[at++];
      }
    }
    if (at >= rest_.size()) fail("the quoted text has no end");
    add(Token::Kind::kString, text);
    skip(at + 1);
  }

  /// Resolves the escape whose letter lies at `at`; where it ends.
  size_t read_escape(size_t at, std::string& text) const {
    static constexpr std::string_view kLetters = "\\'\"abfnrtv\n",
                                      kMeanings = "\\'\"\a\b\f\n\r\t\v";
    const char letter = rest_[at];
    const size_t plain = kLetters.find(letter);
    if (plain != kLetters.npos) {
      if (letter != '\n') text += kMeanings[plain];
      return at + 1;
    }
    const size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (digits == 0) {
      if (is_digit(letter) || letter == 'N')
        fail(std::string("the escape \\") + letter + " is not supported");
      text += '\\';
      return at;
    }
    uint32_t code = 0;
    for (size_t i = 1; i <= digits; ++i) {
      const char c = at + i < rest_.size() ? rest_[at + i] : 0;
      const char low = static_cast<char>(c | 0x20);
      if (!is_digit(c) && (low < 'a' || low > 'f')) fail("an escape lacks digits");
      code = code << 4 | static_cast<uint32_t>(is_digit(c) ? c - '0' : low - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("an escape is no character");
    append_character(code, text);
    return at + 1 + digits;
  }

  const std::string source_;
  std::string_view rest_;
  const std::string& file_;
  std::vector<Token> tokens_;
  size_t line_ = 1;
  bool at_line_start_ = true;
};

}  // namespace

Failure unsupported(const std::string& file, size_t line, const std::string& message) {
  return Failure(ErrorKind::kUnsupported,
                 file + ": line " + std::to_string(line) + " of the chat template: " + message);
}

std::vector<Token> tokens_of(std::string_view source, const std::string& file) {
  return Lexer(source, file).run();
}

}  // namespace vlm::jinja
