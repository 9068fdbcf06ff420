// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace vlm::jinja {

/// Thrown where a template uses a list as text: it was written for messages whose content is text.
class NeedsText : public Failure {
 public:
  using Failure::Failure;
};

/// Where a template's code lies, for complaints.
struct Place {
  const std::string& file;
  size_t line;
  [[noreturn]] void fail(const std::string& message) const;
  /// Complains about `value` where text is expected: NeedsText for a list.
  [[noreturn]] void fail_no_text(const Json& value, const std::string& user) const;
};

/// What stands for a variable that is not set.
inline Json undefined() {
  return Json(Json::value_t::discarded);
}

/// As std::string::find does, but in linear time whatever the texts are.
size_t find_text(const std::string& text, const std::string& part, size_t from = 0);

/// Texts that become longer are refused.
inline constexpr size_t kMaxText = size_t{1} << 22;

/// The following behave as Python and Jinja do; what they can't do equally they refuse. Reentrant.
bool truth(const Json& value);
bool equal(const Json& left, const Json& right);
/// Whether left < right.
bool less(const Json& left, const Json& right, const Place& place);
bool contains(const Json& container, const Json& element, const Place& place);
/// As {{ }} prints it.
std::string printed(const Json& value, const Place& place);
/// value[index], or nothing: undefined.
Json item(const Json& value, const Json& index, const Place& place);
/// value[start:stop:step]; null where left out.
Json slice(const Json& value, const Json& start, const Json& stop, const Json& step,
           const Place& place);
Json operation(const std::string& name, const Json& left, const Json& right, const Place& place);
/// The characters of a text.
std::vector<std::string_view> characters(std::string_view text);
/// What a loop over `value` sees.
Json elements(const Json& value, const Place& place);

/// A call of a filter, a test or a method: the first of `values` is what it is applied to.
struct Call {
  const std::string& name;
  std::vector<Json> values;
  std::map<std::string, Json> named;
  const Place& place;

  /// The text at `index`; complains where there is none.
  const std::string& text(size_t index) const;
  /// Complains where the call has other arguments than `least` to `most` unnamed ones, the value
  /// included.
  void check(size_t least, size_t most) const;
};

Json call_filter(const Call& call);
bool call_test(const Call& call);
Json call_method(const Call& call);

}  // namespace vlm::jinja
