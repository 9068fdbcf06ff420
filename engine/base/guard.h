// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "base/failure.h"
#include "vlm/error.h"

namespace vlm {

/// The exception in flight as an Error; only inside a catch block.
inline Error caught_error() {
  try {
    throw;
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::bad_alloc&) {
    return {ErrorKind::kOutOfMemory, "memory ran out; free some or use a smaller model", {}};
  } catch (const std::exception& exception) {
    return {ErrorKind::kInternal,
            std::string("unexpected failure in the engine: ") + exception.what(),
            {}};
  } catch (...) {
    return {ErrorKind::kInternal, "unexpected failure of unknown type in the engine", {}};
  }
}

/// Calls `body` and turns whatever it throws into an Error. `body` returns a Result.
template <typename Body>
auto guarded(Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    return caught_error();
  }
}

/// Calls `body` and drops whatever it throws: for a host's callbacks, which must not throw.
template <typename Body>
void shielded(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
  } catch (...) {
  }
}

}  // namespace vlm
