// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <vector>

#include "base/device.h"
#include "base/failure.h"
#include "cuda/tensor_ops.h"

namespace vlm {

/// Half the distance between two neighbours of the type, relative.
inline double half_step(at::ScalarType type) {
  return type == at::kFloat ? 0x1p-24 : type == at::kHalf ? 0x1p-11 : 0x1p-8;
}

inline at::Tensor to_gpu(const at::Tensor& tensor) {
  return tensor.to(resolve_device("cuda"));
}

/// Random values that the type holds exactly, on the CPU.
inline at::Tensor random_values(at::IntArrayRef shape, at::ScalarType type, double spread = 1) {
  return (at::randn(shape) * spread).to(type);
}

inline void* stream_of_tests() {
  return current_stream(resolve_device("cuda"));
}

/// Elements differ by at most `steps` roundings of the type, and by `floor` where values vanish.
inline void expect_close(const at::Tensor& got, const at::Tensor& wanted, double steps,
                         double floor) {
  ASSERT_EQ(got.sizes(), wanted.sizes());
  const at::Tensor here = got.cpu().to(at::kDouble), there = wanted.cpu().to(at::kDouble);
  const at::Tensor allowed = there.abs() * (2 * steps * half_step(got.scalar_type())) + floor;
  const at::Tensor error = (here - there).abs();
  // NaN compares as false.
  EXPECT_TRUE((error <= allowed).all().item<bool>())
      << "largest error " << error.max().item<double>();
}

/// main() of a program of such tests: exits with 77, which means skipped, where there is no GPU.
inline int run_gpu_tests(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (cuda_module() == nullptr) {
    std::puts("no GPU, or no GPU module beside the test: skipped");
    return 77;
  }
  resolve_device("cuda");
  return RUN_ALL_TESTS();
}

}  // namespace vlm
