// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace describe {

/// The whole of `text` as a number, independent of the locale. Reentrant.
template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  if constexpr (std::is_floating_point_v<Number>) {
    if (!std::isfinite(value)) return std::nullopt;
  }
  return value;
}

/// Seconds, at most about 290 years, to nanoseconds. Reentrant.
inline std::optional<uint64_t> parse_seconds(std::string_view text) {
  const std::optional<double> seconds = parse_number<double>(text);
  if (!seconds || *seconds < 0 || *seconds > 9e9) return std::nullopt;
  return static_cast<uint64_t>(std::llround(*seconds * 1e9));
}

/// The shortest decimal form that reads back as `value`. Reentrant.
inline std::string number_text(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

}  // namespace describe
