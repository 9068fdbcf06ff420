// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>

namespace vlm {

/// Memory for what is read as a whole again and again, such as weights: in large pages where the
/// operating system gives them to those who ask (Linux: transparent huge pages), since looking up
/// small ones keeps a processor from reading as fast as memory goes. Thread-bound; what it gave
/// lives on its own.
class HugeMemory {
 public:
  /// Whether the operating system has such pages. Reentrant.
  static bool available();
  /// Whether this is memory that take() gave, whoever took it. Reentrant.
  static bool holds(const at::Tensor& tensor);

  HugeMemory() = default;
  HugeMemory(HugeMemory&&) = default;  // copies would give the same memory twice
  HugeMemory& operator=(HugeMemory&&) = default;

  /// Contiguous, on the CPU, aligned to cache lines, not initialised. Memory comes in blocks that
  /// are given back when none of their tensors is left. Undefined where the system has no more.
  at::Tensor take(at::IntArrayRef sizes, at::ScalarType type);

 private:
  class Block;

  static void let_go(void* block);

  std::shared_ptr<Block> block_;
  size_t used_ = 0;
};

}  // namespace vlm
