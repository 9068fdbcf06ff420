// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <exception>
#include <new>
#include <utility>

#include "vlm/error.h"

namespace vlm {

/// Thrown inside the engine only, for failures that unwind many calls (a broken checkpoint, a
/// failed allocation); caught at the library's border, where it becomes a Result again.
class Failure : public std::exception {
 public:
  explicit Failure(Error error) : error_(std::move(error)) {}
  Failure(ErrorKind kind, std::string message) : error_{kind, std::move(message), {}} {}
  const char* what() const noexcept override { return error_.message.c_str(); }
  const Error& error() const { return error_; }

 private:
  Error error_;
};

/// What `work` returns, or the Error that it threw as a Failure.
template <typename Work>
auto as_result(Work&& work) -> Result<decltype(work())> {
  try {
    return work();
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, "memory ran out; free some or use a smaller model", {}};
  }
}

}  // namespace vlm
