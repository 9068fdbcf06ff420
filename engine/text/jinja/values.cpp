// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/jinja/values.h"

#include <string.h>

#include <algorithm>

#include "text/jinja/lexer.h"
#include "text/utf8.h"

namespace vlm::jinja {
namespace {

std::string kind_of(const Json& value) {
  if (value.is_discarded()) return "something undefined";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "a table";
  return value.is_null() ? "none" : value.is_string() ? "a text" : "the number " + value.dump();
}

bool is_whole(const Json& value) {
  return value.is_number_integer() || value.is_boolean();
}

int64_t whole(const Json& value) {
  return value.is_boolean() ? value.get<bool>() : value.get<int64_t>();
}

Json number_operation(char name, int64_t left, int64_t right, const Place& place) {
  int64_t result = 0;
  bool overflow = false;
  if (name == '+') {
    overflow = __builtin_add_overflow(left, right, &result);
  } else if (name == '-') {
    overflow = __builtin_sub_overflow(left, right, &result);
  } else if (name == '*') {
    overflow = __builtin_mul_overflow(left, right, &result);
  } else {
    if (right == 0) place.fail("something is divided by 0");
    if (right == -1) return number_operation('*', name == '%' ? 0 : left, -1, place);
    // Python rounds down and gives the rest the divisor's sign.
    int64_t rest = left % right;
    const bool below = rest != 0 && (rest < 0) != (right < 0);
    if (below) rest += right;
    result = name == '%' ? rest : left / right - below;
  }
  if (overflow) place.fail("a number becomes too large");
  return result;
}

}  // namespace

size_t find_text(const std::string& text, const std::string& part, size_t from) {
  const void* found = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : text.npos;
}

void Place::fail(const std::string& message) const {
  throw unsupported(file, line, message);
}

void Place::fail_no_text(const Json& value, const std::string& user) const {
  const Failure failure =
      unsupported(file, line, user + " is given " + kind_of(value) + " instead of text");
  if (value.is_array()) throw NeedsText(failure.error());
  throw failure;
}

bool truth(const Json& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 0;
  return value.is_string() ? !value.get_ref<const std::string&>().empty() : !value.empty();
}

bool equal(const Json& left, const Json& right) {
  if (left.is_discarded() || right.is_discarded()) {
    return left.is_discarded() && right.is_discarded();
  }
  if (is_whole(left) && is_whole(right)) return whole(left) == whole(right);
  return left == right;
}

bool less(const Json& left, const Json& right, const Place& place) {
  if (is_whole(left) && is_whole(right)) return whole(left) < whole(right);
  if (!left.is_string() || !right.is_string()) {
    place.fail("a comparison of " + kind_of(left) + " with " + kind_of(right) +
               " is not supported");
  }
  return left.get_ref<const std::string&>() < right.get_ref<const std::string&>();
}

bool contains(const Json& container, const Json& element, const Place& place) {
  if (container.is_discarded()) return false;
  if (container.is_array()) {
    return std::any_of(container.begin(), container.end(),
                       [&](const Json& entry) { return equal(entry, element); });
  }
  if (element.is_string() && container.is_string()) {
    return find_text(container.get_ref<const std::string&>(),
                     element.get_ref<const std::string&>()) != std::string::npos;
  }
  if (element.is_string() && container.is_object()) {
    return container.contains(element.get_ref<const std::string&>());
  }
  place.fail("a search for " + kind_of(element) + " in " + kind_of(container) +
             " is not supported");
}

std::string printed(const Json& value, const Place& place) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_discarded()) return "";
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_integer()) return value.dump();
  place.fail_no_text(value, "what prints");
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> all;
  while (!text.empty()) {
    const size_t length = std::max<size_t>(1, utf8_length(text));
    all.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return all;
}

Json item(const Json& value, const Json& index, const Place& place) {
  if (value.is_discarded()) place.fail("an item of something undefined is asked for");
  if (value.is_object() && index.is_string()) {
    const auto found = value.find(index.get_ref<const std::string&>());
    return found == value.end() ? undefined() : *found;
  }
  if (!is_whole(index) || value.is_object()) return undefined();
  const auto of = [&](const auto& all) {
    const auto size = static_cast<int64_t>(all.size());
    const int64_t at = whole(index) < 0 ? whole(index) + size : whole(index);
    return at >= 0 && at < size ? Json(all[static_cast<size_t>(at)]) : undefined();
  };
  if (value.is_array()) return of(value);
  return value.is_string() ? of(characters(value.get_ref<const std::string&>())) : undefined();
}

Json slice(const Json& value, const Json& start, const Json& stop, const Json& step,
           const Place& place) {
  if (!value.is_array() && !value.is_string()) {
    place.fail("a part of " + kind_of(value) + " is asked for");
  }
  for (const Json* bound : {&start, &stop, &step}) {
    if (!bound->is_null() && !is_whole(*bound)) place.fail("a bound is " + kind_of(*bound));
  }
  const bool text = value.is_string();
  const std::vector<std::string_view> parts =
      text ? characters(value.get_ref<const std::string&>()) : std::vector<std::string_view>();
  const auto size = static_cast<int64_t>(text ? parts.size() : value.size());
  // A step longer than the list gives the first element alone, as one of its length does.
  const int64_t wide = size + 1;
  const int64_t stride = step.is_null() ? 1 : std::clamp(whole(step), -wide, wide);
  if (stride == 0) place.fail("the step of a part is 0");
  const auto bound = [&](const Json& given, int64_t otherwise) {
    if (given.is_null()) return otherwise;
    const int64_t at = whole(given) < 0 ? whole(given) + size : whole(given);
    return stride > 0 ? std::clamp<int64_t>(at, 0, size) : std::clamp<int64_t>(at, -1, size - 1);
  };
  const int64_t first = bound(start, stride > 0 ? 0 : size - 1);
  const int64_t last = bound(stop, stride > 0 ? size : -1);
  std::string taken_text;
  Json taken = Json::array();
  for (int64_t at = first; stride > 0 ? at < last : at > last; at += stride) {
    if (text) {
      taken_text += parts[static_cast<size_t>(at)];
    } else {
      taken.push_back(value[static_cast<size_t>(at)]);
    }
  }
  return text ? Json(std::move(taken_text)) : taken;
}

Json operation(const std::string& name, const Json& left, const Json& right, const Place& place) {
  if (name == "~") return printed(left, place) + printed(right, place);
  if (name == "/") place.fail("the operator / is not supported");
  if (is_whole(left) && is_whole(right)) {
    return number_operation(name[0], whole(left), whole(right), place);
  }
  if (name != "+") {
    place.fail("the operator " + name + " between " + kind_of(left) + " and " + kind_of(right) +
               " is not supported");
  }
  if (left.is_array() && right.is_array()) {
    Json both = left;
    for (const Json& entry : right) both.push_back(entry);
    return both;
  }
  if (!left.is_string()) place.fail_no_text(left, "the operator +");
  if (!right.is_string()) place.fail_no_text(right, "the operator +");
  return left.get_ref<const std::string&>() + right.get_ref<const std::string&>();
}

Json elements(const Json& value, const Place& place) {
  if (value.is_array()) return value;
  if (value.is_discarded()) return Json::array();
  if (value.is_string()) return Json(characters(value.get_ref<const std::string&>()));
  place.fail("a loop over " + kind_of(value) + " is not supported");
}

}  // namespace vlm::jinja
