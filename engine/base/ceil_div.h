// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <concepts>
#include <type_traits>

namespace vlm {

/// value / by, rounded up; value from 0 on, by from 1 on. Reentrant.
template <std::integral T>
constexpr T ceil_div(T value, std::type_identity_t<T> by) {
  return (value + by - 1) / by;
}

/// The multiple of `unit` that is no less than `value`. Reentrant.
template <std::integral T>
constexpr T round_up(T value, std::type_identity_t<T> unit) {
  return ceil_div(value, unit) * unit;
}

}  // namespace vlm
