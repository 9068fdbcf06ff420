// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <exception>
#include <new>
#include <string>
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

/// For memory, `whose` it says, that ran out while `doing` was done; `words` are the allocator's.
inline Failure memory_failure(const std::string& whose, const std::string& doing,
                              const std::string& words) {
  return Failure(Error{
      ErrorKind::kOutOfMemory,
      whose + " ran out while " + doing + ": use a smaller model or type, or free memory", words});
}

/// For what a GPU refused while `doing` was done, in the driver's or libtorch's `words`. But for
/// want of memory the GPU is lost to this process then.
inline Failure gpu_failure(const std::string& doing, const std::string& words) {
  for (const char* memory : {"out of memory", "ALLOC_FAILED"}) {
    if (words.find(memory) != std::string::npos) {
      return memory_failure("the device's memory", doing, words);
    }
  }
  return Failure(Error{ErrorKind::kDevice,
                       "the GPU failed while " + doing + " (" + words.substr(0, words.find('\n')) +
                           "): restart the program, and if it happens again look into the system's "
                           "log for what the driver found",
                       words});
}

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
