// SPDX-License-Identifier: LGPL-2.1-or-later
#include "base/translated.h"

#include <gtest/gtest.h>
#include <torch/version.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "base/guard.h"

namespace vlm {
namespace {

/// What the engine makes of an exception in a step.
Error error_of(const std::function<void()>& step) {
  const Status status = guarded([&] {
    translated("running the language model", step);
    return ok_status();
  });
  return status ? Error{} : status.error();
}

void refuse(const std::string& words) {
  TORCH_CHECK(false, words);
}

struct Case {
  const char* name;
  std::function<void()> step;
  ErrorKind kind;
  const char* cause;
  const char* cure;
};

std::ostream& operator<<(std::ostream& out, const Case& one) {
  return out << one.name;
}

class Translated : public ::testing::TestWithParam<Case> {};

TEST_P(Translated, names_cause_and_cure) {
  const Case& one = GetParam();
  const Error error = error_of(one.step);
  EXPECT_EQ(error.kind, one.kind) << error.message;
  EXPECT_NE(error.message.find("running the language model"), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(one.cause), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(one.cure), std::string::npos) << error.message;
  EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
}

// In the words of libtorch and of the module with our own kernels.
INSTANTIATE_TEST_SUITE_P(
    Exceptions, Translated,
    ::testing::Values(
        Case{"allocator_of_the_device",
             [] {
               TORCH_CHECK_WITH(OutOfMemoryError, false,
                                "CUDA out of memory. Tried to allocate 2.00 GiB.");
             },
             ErrorKind::kOutOfMemory, "device's memory ran out", "smaller model"},
        Case{"driver_without_memory",
             [] { refuse("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"); },
             ErrorKind::kOutOfMemory, "device's memory ran out", "free memory"},
        Case{"cublas_without_memory",
             [] { refuse("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"); },
             ErrorKind::kOutOfMemory, "device's memory ran out", "free memory"},
        Case{"kernel_without_memory",
             [] { throw gpu_failure("running the language model", "out of memory"); },
             ErrorKind::kOutOfMemory, "device's memory ran out", "free memory"},
        Case{"host_allocator",
             [] {
               refuse("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate");
             },
             ErrorKind::kOutOfMemory, "memory ran out", "smaller model"},
        Case{"host_without_memory", [] { throw std::bad_alloc(); }, ErrorKind::kOutOfMemory,
             "memory ran out", "free memory"},
        Case{"illegal_access",
             [] {
               refuse("CUDA error: an illegal memory access was encountered\nCUDA kernel errors");
             },
             ErrorKind::kDevice, "an illegal memory access was encountered", "restart the program"},
        Case{"lost_device", [] { refuse("CUDA error: unspecified launch failure"); },
             ErrorKind::kDevice, "unspecified launch failure", "restart the program"},
        Case{"lost_in_a_kernel",
             [] { throw gpu_failure("running the language model", "the launch timed out"); },
             ErrorKind::kDevice, "the launch timed out", "restart the program"},
        Case{"anything_else_of_libtorch", [] { refuse("The size of tensor a must match b"); },
             ErrorKind::kInternal, "The size of tensor", "libtorch failed"}),
    [](const ::testing::TestParamInfo<Case>& one) { return one.param.name; });

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 8)
// The type that newer versions throw for what CUDA reports.
TEST(TranslatedErrors, accelerator_error_is_a_lost_device) {
  const Error error = error_of([] {
    throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, 700,
                                "CUDA error: an illegal memory access was encountered");
  });
  EXPECT_EQ(error.kind, ErrorKind::kDevice) << error.message;
}
#endif

TEST(TranslatedErrors, failure_of_ours_stays_as_it_is) {
  const Error error = error_of([] { throw Failure(ErrorKind::kIo, "the file is gone"); });
  EXPECT_EQ(error.kind, ErrorKind::kIo);
  EXPECT_EQ(error.message, "the file is gone");
}

}  // namespace
}  // namespace vlm
