// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/chat_template.h"

#include <algorithm>
#include <array>

namespace vlm {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::string_view trim_end(std::string_view text) {
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// A quoted text with its escapes resolved, in single quotes; moves `source` behind it.
std::string take_quoted(std::string_view& source) {
  const char quote = source[0];
  std::string text = "'";
  size_t at = 1;
  for (; at < source.size() && source[at] != quote; ++at) {
    if (source[at] != '\\' || at + 1 == source.size()) {
      text += source[at];
      continue;
    }
    ++at;
    text += source[at] == 'n' ? '\n' : source[at] == 't' ? '\t' : source[at];
  }
  source.remove_prefix(std::min(at + 1, source.size()));
  return text + "'";
}

/// The inside of a tag with spaces only where words would run together.
std::string canonical_code(std::string_view code) {
  std::string result;
  while (!code.empty()) {
    if (is_space(code[0])) {
      while (!code.empty() && is_space(code[0])) code.remove_prefix(1);
      if (!result.empty() && !code.empty() && is_word(result.back()) && is_word(code[0])) {
        result += ' ';
      }
    } else if (code[0] == '\'' || code[0] == '"') {
      result += take_quoted(code);
    } else {
      result += code[0];
      code.remove_prefix(1);
    }
  }
  return result;
}

/// Where the tag that `source` starts with ends, quotes heeded; npos where it does not.
size_t find_close(std::string_view source, std::string_view close) {
  char quote = 0;
  for (size_t at = 2; at + 1 < source.size(); ++at) {
    const char c = source[at];
    if (quote) {
      if (c == '\\') ++at;
      if (c == quote) quote = 0;
    } else if (source.substr(at, 2) == close) {
      return at;
    } else if (close != "#}" && (c == '\'' || c == '"')) {
      quote = c;
    }
  }
  return source.npos;
}

/// Walks through a template.
class Reader {
 public:
  explicit Reader(std::string_view source) : rest_(source) {
    if (rest_.ends_with('\n')) rest_.remove_suffix(1);  // as Jinja reads it
  }

  std::string read() {
    while (!rest_.empty()) {
      size_t open = 0;
      while (open < rest_.size() && !opens(open)) ++open;
      read_text(open);
      if (!rest_.empty() && !read_tag()) return result_ + std::string(rest_);
    }
    return result_;
  }

 private:
  bool opens(size_t at) const {
    const std::string_view mark = rest_.substr(at, 2);
    return mark == "{{" || mark == "{%" || mark == "{#";
  }

  void read_text(size_t length) {
    std::string_view text = rest_.substr(0, length);
    rest_.remove_prefix(length);
    if (strip_next_) {
      while (!text.empty() && is_space(text[0])) text.remove_prefix(1);
    }
    const bool block = rest_.starts_with("{%") || rest_.starts_with("{#");
    if (rest_.size() > 2 && rest_[2] == '-') {
      text = trim_end(text);
    } else if (block) {
      const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      const bool at_line_start = line > 0 || after_break_;
      if (at_line_start && trim_end(text.substr(line)).empty()) text = text.substr(0, line);
    }
    result_ += text;
  }

  bool read_tag() {
    const char kind = rest_[1];
    const std::string close = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
    const size_t end = find_close(rest_, close);
    if (end == rest_.npos) return false;
    std::string_view inside = rest_.substr(2, end - 2);
    rest_.remove_prefix(end + 2);
    if (inside.starts_with('-') || inside.starts_with('+')) inside.remove_prefix(1);
    strip_next_ = inside.ends_with('-');
    if (strip_next_) inside.remove_suffix(1);
    const std::string code = canonical_code(inside);
    if (kind == '{') result_ += "{{" + code + "}}";
    if (kind == '%' && code != "generation" && code != "endgeneration") {
      result_ += "{%" + code + "%}";
    }
    after_break_ = false;
    if (kind != '{' && rest_.starts_with('\n')) {
      rest_.remove_prefix(1);
      after_break_ = true;
    }
    return true;
  }

  std::string_view rest_;
  std::string result_;
  bool strip_next_ = false;
  bool after_break_ = true;  // what follows starts a line
};

}  // namespace

std::string canonical_template(std::string_view source) {
  return Reader(source).read();
}

bool is_llava_template(std::string_view source) {
  const std::string head =
      "{%for message in messages%}{%if message['role']!='system'%}"
      "{{message['role'].upper()+': '}}{%endif%}"
      "{%for content in message['content']|selectattr('type','equalto','image')%}"
      "{{'<image>\n'}}{%endfor%}";
  const std::string text =
      "{%for content in message['content']|selectattr('type','equalto','text')%}"
      "{{content['text']+' '}}{%endfor%}";
  const std::string tail = "{%endfor%}{%if add_generation_prompt%}{{'ASSISTANT:'}}{%endif%}";
  const std::string split =
      "{%if message['role']!='assistant'%}" + text + "{%else%}" + text + "{%endif%}";
  const std::string found = canonical_template(source);
  return found == head + text + tail || found == head + split + tail;
}

}  // namespace vlm
