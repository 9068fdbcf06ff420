// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/huge_memory.h"
#include "loader/weights.h"
#include "vlm/engine.h"

namespace vlm {

/// libtorch's name of a type. kAuto has none (Failure, kInternal).
at::ScalarType scalar_type(DType dtype);

/// Hands the checkpoint's tensors to the stages, on the device and in the type the model runs in. A
/// tensor that already has the type and stays on the CPU is the file's mapping itself, not a copy,
/// and the mapping's pages are let go of when nobody holds it any more. Others are converted one by
/// one by all of libtorch's threads, so that at most one is there twice.
/// Thread-bound, used while loading only. Every call may throw Failure (a missing tensor, memory,
/// or `stop` requested).
class TensorSource {
 public:
  TensorSource(const Weights& weights, at::Device device, at::ScalarType dtype,
               LoadProgress progress, std::stop_token stop);

  /// The tensor `name`, which must have this shape.
  at::Tensor take(const std::string& name, at::IntArrayRef shape);
  /// Undefined where the checkpoint has none.
  at::Tensor take_optional(const std::string& name, at::IntArrayRef shape);

  /// The tensor as the file holds it, on the CPU: for weights that are packed while loading.
  /// What is held instead of it is told by count_held.
  at::Tensor take_stored(const std::string& name, at::IntArrayRef shape);
  void count_held(const at::Tensor& tensor) { bytes_ += static_cast<int64_t>(tensor.nbytes()); }

  /// Memory on the CPU for weights that are made of stored ones; not initialised, contiguous. Where
  /// they stay there it comes in large pages, if the system has such: those take less time to get,
  /// and to read later on.
  at::Tensor make(at::IntArrayRef shape, at::ScalarType type);

  /// Where tensors go.
  at::Device device() const { return device_; }

  int64_t parameters() const { return parameters_; }
  int64_t bytes() const { return bytes_; }
  /// Of them, those that are the file's mapping itself.
  int64_t mapped_bytes() const { return mapped_bytes_; }

 private:
  at::Tensor stored_view(const std::string& name, at::IntArrayRef shape);
  at::Tensor converted(const at::Tensor& stored);

  const Weights& weights_;
  at::Device device_;
  at::ScalarType dtype_;
  LoadProgress progress_;
  std::stop_token stop_;
  HugeMemory large_pages_;
  size_t stored_bytes_ = 0;  ///< of the whole checkpoint, for the progress
  size_t taken_bytes_ = 0;
  std::set<std::string> taken_;  ///< what the progress and the parameters count already
  int64_t parameters_ = 0;
  int64_t bytes_ = 0;
  int64_t mapped_bytes_ = 0;
};

}  // namespace vlm
