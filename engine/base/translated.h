// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "base/failure.h"

namespace vlm {

/// Calls `work`; libtorch's exceptions become Failure, with what a caller can do about them.
/// `doing` says what was done then.
template <typename Work>
auto translated(const char* doing, Work work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError& error) {
    throw memory_failure("the device's memory", doing, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    if (what.find("DefaultCPUAllocator") != std::string::npos) {
      throw memory_failure("memory", doing, what);
    }
    if (what.find("CUDA") != std::string::npos) {
      throw gpu_failure(doing, what);
    }
    throw Failure(Error{
        ErrorKind::kInternal,
        std::string("libtorch failed while ") + doing + ": " + what.substr(0, what.find('\n')),
        what});
  } catch (const std::bad_alloc&) {
    throw memory_failure("memory", doing, {});
  }
}

}  // namespace vlm
