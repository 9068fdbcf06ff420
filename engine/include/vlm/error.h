// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace vlm {

/// What went wrong, as far as a caller can act on it.
enum class ErrorKind {
  kInvalidArgument,  ///< an option or a request is not acceptable; the message says which and why
  kNotFound,         ///< a file or directory does not exist or cannot be read
  kInvalidModel,     ///< the checkpoint is broken: wrong JSON, missing, extra or misshapen tensors
  kUnsupported,      ///< a valid checkpoint or option that this version does not implement
  kPromptTooLong,    ///< the prompt does not fit the model's context
  kOutOfMemory,      ///< memory of the host or the device ran out
  kDevice,           ///< the device is absent or was lost
  kCancelled,        ///< cancelled by the caller, or the engine was closed
  kIo,               ///< reading or writing a file failed
  kInternal,         ///< a bug of ours
};

/// One failure: `message` is one plain sentence that names cause and cure, `detail` may add what a
/// developer wants.
struct Error {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message;
  std::string detail;
};

/// Either a value or the Error that took its place. Reentrant.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  /// Only where ok().
  T& value() { return *std::get_if<0>(&state_); }
  const T& value() const { return *std::get_if<0>(&state_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  /// Only where not ok().
  const Error& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

/// The outcome of something that has no value.
using Status = Result<std::monostate>;

inline Status ok_status() {
  return Status(std::monostate{});
}

}  // namespace vlm
