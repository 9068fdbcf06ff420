// SPDX-License-Identifier: LGPL-2.1-or-later
#include <algorithm>

#include "text/description.h"
#include "text/jinja/values.h"

namespace vlm::jinja {
namespace {

char upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/// The text with its case changed: upper, lower or capitalize.
std::string with_case(const Call& call, std::string text) {
  call.check(1, 1);
  if (std::any_of(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; })) {
    call.place.fail(call.name + " of letters beyond ASCII is not supported");
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const bool rises = call.name == "upper" || (call.name == "capitalize" && i == 0);
    text[i] = rises ? upper(text[i]) : lower(text[i]);
  }
  return text;
}

/// Every run of letters as a capital and small letters.
std::string with_titles(const Call& call) {
  const std::string lower_name = "lower";
  std::string text = with_case(Call{lower_name, call.values, call.named, call.place}, call.text(0));
  bool inside = false;
  for (char& c : text) {
    if (!inside) c = upper(c);
    inside = upper(c) != lower(c);
  }
  return text;
}

/// strip, lstrip or rstrip.
std::string stripped(const Call& call, std::string text) {
  call.check(1, 2);
  const bool front = call.name != "rstrip", back = call.name != "lstrip";
  if (call.values.size() == 2) {
    const std::string& set = call.text(1);
    if (std::any_of(set.begin(), set.end(), [](char c) { return (c & 0x80) != 0; })) {
      call.place.fail(call.name + " of characters beyond ASCII is not supported");
    }
    if (back) text.erase(text.find_last_not_of(set) + 1);  // npos + 1 is 0
    if (front) text.erase(0, std::min(text.size(), text.find_first_not_of(set)));
    return text;
  }
  const std::string_view inside = trimmed(text);
  const size_t start = static_cast<size_t>(inside.data() - text.data());
  if (inside.empty()) return "";
  if (back) text.resize(start + inside.size());
  if (front) text.erase(0, start);
  return text;
}

std::string replaced(const Call& call, const std::string& text) {
  call.check(3, 3);
  const std::string &from = call.text(1), &to = call.text(2);
  if (from.empty()) call.place.fail("the replacement of nothing is not supported");
  std::string result;
  size_t at = 0;
  for (size_t found; (found = find_text(text, from, at)) != text.npos; at = found + from.size()) {
    result.append(text, at, found - at).append(to);
    if (result.size() > kMaxText) call.place.fail("a text becomes too large");
  }
  return result.append(text, at);
}

Json split(const Call& call) {
  call.check(2, 2);
  const std::string &text = call.text(0), &separator = call.text(1);
  if (separator.empty()) call.place.fail("a split at nothing is not supported");
  Json parts = Json::array();
  size_t at = 0;
  for (size_t found; (found = find_text(text, separator, at)) != text.npos;
       at = found + separator.size()) {
    parts.push_back(text.substr(at, found - at));
  }
  parts.push_back(text.substr(at));
  return parts;
}

/// A filter or a test by name, for one element of a list.
Call inner(const Call& call, Json value, size_t skipped, const std::string& name) {
  Call made{name, {std::move(value)}, {}, call.place};
  for (size_t i = skipped; i < call.values.size(); ++i) made.values.push_back(call.values[i]);
  return made;
}

Json attribute(const Call& call, const Json& element, const std::string& name) {
  if (name.empty() || name.find('.') != name.npos || (name[0] >= '0' && name[0] <= '9')) {
    call.place.fail(call.name + " by the attribute " + name + " is not supported");
  }
  return item(element, name, call.place);
}

/// selectattr and rejectattr: (list, attribute[, test, its arguments…]).
Json selected(const Call& call) {
  if (call.values.size() < 2) call.check(2, 9);
  Json kept = Json::array();
  for (const Json& element : elements(call.values[0], call.place)) {
    const Json value = attribute(call, element, call.text(1));
    const bool holds =
        call.values.size() > 2 ? call_test(inner(call, value, 3, call.text(2))) : truth(value);
    if (holds == (call.name == "selectattr")) kept.push_back(element);
  }
  return kept;
}

Json mapped(const Call& call) {
  Json results = Json::array();
  const auto name = call.named.find("attribute");
  const bool by_attribute = name != call.named.end() && name->second.is_string() &&
                            call.named.size() == 1 && call.values.size() == 1;
  if (!by_attribute) {
    if (call.values.size() < 2) call.check(2, 9);
    call.check(2, 9);
  }
  for (const Json& element : elements(call.values[0], call.place)) {
    results.push_back(by_attribute
                          ? attribute(call, element, name->second.get_ref<const std::string&>())
                          : call_filter(inner(call, element, 2, call.text(1))));
  }
  return results;
}

Json joined(const Call& call) {
  call.check(1, 2);
  std::string result;
  bool first = true;
  for (const Json& element : elements(call.values[0], call.place)) {
    if (!first && call.values.size() == 2) result += printed(call.values[1], call.place);
    result += printed(element, call.place);
    if (result.size() > kMaxText) call.place.fail("a text becomes too large");
    first = false;
  }
  return result;
}

Json with_default(const Call& call) {
  if (call.values.size() > 3) call.check(1, 3);
  bool also_false = call.values.size() > 2 && truth(call.values[2]);
  for (const auto& [name, value] : call.named) {
    if (name != "boolean") call.place.fail("default with " + name + " is not supported");
    also_false = truth(value);
  }
  const bool missing = also_false ? !truth(call.values[0]) : call.values[0].is_discarded();
  if (!missing) return call.values[0];
  return call.values.size() > 1 ? call.values[1] : Json("");
}

Json length_of(const Call& call) {
  call.check(1, 1);
  const Json& value = call.values[0];
  return value.is_object() ? value.size() : elements(value, call.place).size();
}

/// The first or the last element.
Json outermost(const Call& call) {
  call.check(1, 1);
  return item(elements(call.values[0], call.place), call.name == "first" ? 0 : -1, call.place);
}

Json backwards(const Call& call) {
  call.check(1, 1);
  return slice(call.values[0], nullptr, nullptr, -1, call.place);
}

bool is_whole(const Json& value) {
  return value.is_number_integer() || value.is_boolean();
}

int64_t whole_at(const Call& call, size_t index) {
  const Json& value = call.values[index];
  if (!is_whole(value)) call.place.fail("the test " + call.name + " needs whole numbers");
  return value.is_boolean() ? value.get<bool>() : value.get<int64_t>();
}

/// Whether the first value is a multiple of `divisor`, as a Python remainder says it.
bool divides(const Call& call, int64_t divisor) {
  const int64_t value = whole_at(call, 0);
  if (divisor == 0) call.place.fail("something is divided by 0");
  return divisor == -1 || value % divisor == 0;
}

std::optional<bool> kind_test(const Call& call) {
  const std::string& name = call.name;
  const Json& value = call.values[0];
  if (name == "defined") return !value.is_discarded();
  if (name == "undefined") return value.is_discarded();
  if (name == "none") return value.is_null();
  if (name == "string") return value.is_string();
  if (name == "mapping") return value.is_object();
  if (name == "boolean") return value.is_boolean();
  if (name == "true") return value.is_boolean() && value.get<bool>();
  if (name == "false") return value.is_boolean() && !value.get<bool>();
  if (name == "integer") return value.is_number_integer();
  if (name == "number") return is_whole(value);
  if ((name == "sequence" || name == "iterable") && !value.is_discarded()) {
    return value.is_array() || value.is_string() || value.is_object();
  }
  if (name == "even") return divides(call, 2);
  if (name == "odd") return !divides(call, 2);
  return std::nullopt;
}

}  // namespace

const std::string& Call::text(size_t index) const {
  if (!values[index].is_string()) place.fail_no_text(values[index], name);
  return values[index].get_ref<const std::string&>();
}

void Call::check(size_t least, size_t most) const {
  if (values.size() >= least && values.size() <= most && named.empty()) return;
  place.fail(name + " with these arguments is not supported");
}

Json call_filter(const Call& call) {
  const std::string& name = call.name;
  if (name == "trim") {
    const std::string strip = "strip";
    return stripped(Call{strip, call.values, call.named, call.place},
                    printed(call.values[0], call.place));
  }
  if (name == "upper" || name == "lower" || name == "capitalize") {
    return with_case(call, printed(call.values[0], call.place));
  }
  if (name == "replace") return replaced(call, printed(call.values[0], call.place));
  if (name == "length" || name == "count") return length_of(call);
  if (name == "first" || name == "last") return outermost(call);
  if (name == "selectattr" || name == "rejectattr") return selected(call);
  if (name == "map") return mapped(call);
  if (name == "join") return joined(call);
  if (name == "default" || name == "d") return with_default(call);
  if (name == "reverse") return backwards(call);
  if (name == "list" && call.values.size() == 1) return elements(call.values[0], call.place);
  if (name == "string" && call.values.size() == 1) return printed(call.values[0], call.place);
  call.place.fail("the filter " + name + " is not supported");
}

bool call_test(const Call& call) {
  if (const auto known = kind_test(call)) {
    call.check(1, 1);
    return *known;
  }
  static constexpr const char* kEqual[] = {"equalto", "eq", "=="};
  static constexpr const char* kDifferent[] = {"ne", "!="};
  const auto is_one_of = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), call.name) != std::end(names);
  };
  if (is_one_of(kEqual) || is_one_of(kDifferent) || call.name == "in" ||
      call.name == "divisibleby") {
    call.check(2, 2);
    if (call.name == "in") return contains(call.values[1], call.values[0], call.place);
    if (call.name == "divisibleby") return divides(call, whole_at(call, 1));
    return equal(call.values[0], call.values[1]) == is_one_of(kEqual);
  }
  call.place.fail("the test " + call.name + " is not supported");
}

Json call_method(const Call& call) {
  const std::string& name = call.name;
  if (call.values[0].is_object() && name == "get") {
    call.check(2, 3);
    const Json found = item(call.values[0], call.text(1), call.place);
    if (!found.is_discarded()) return found;
    return call.values.size() == 3 ? call.values[2] : Json(nullptr);
  }
  if (!call.values[0].is_string()) {
    call.place.fail_no_text(call.values[0], "the method " + name);
  }
  const std::string& text = call.text(0);
  if (name == "upper" || name == "lower" || name == "capitalize") return with_case(call, text);
  if (name == "title") return with_titles(call);
  if (name == "strip" || name == "lstrip" || name == "rstrip") return stripped(call, text);
  if (name == "replace") return replaced(call, text);
  if (name == "split") return split(call);
  if (name == "startswith" || name == "endswith") {
    call.check(2, 2);
    return name == "startswith" ? text.starts_with(call.text(1)) : text.ends_with(call.text(1));
  }
  call.place.fail("the method " + name + " is not supported");
}

}  // namespace vlm::jinja
