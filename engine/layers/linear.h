// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/huge_memory.h"
#include "cuda/module.h"
#include "kernels/dense.h"
#include "kernels/packed_matrix.h"
#include "loader/tensors.h"

namespace vlm {

/// So many rows of x at most our own kernels take on a GPU in less time than libtorch does.
inline constexpr int64_t kFewRowsOnGpu = 16;

/// Part of a checkpoint's matrices: `name`.weight [outputs, inputs] and, where the matrix has one,
/// `name`.bias [outputs].
struct LinearPart {
  std::string name;
  int64_t outputs = 0;
};

/// How matrices are packed while loading.
struct Packing {
  PackedFormat format = PackedFormat::kInt8;
  /// Rows of x are rounded to 8 bits where that is faster: many are multiplied by byte_products(),
  /// which must run.
  bool in_bytes = false;
};

/// What a product of few rows on the CPU is made of (kernels/laid_out_rows.h).
struct FewRowsWeights {
  PackedShape shape;
  const std::byte* weights = nullptr;
  const uint16_t* bias = nullptr;  ///< bfloat16 [outputs], or null
  bool in_bytes = false;           ///< as MatVecArgs has it
};

/// x · Wᵀ + b with the weights in the model's type, or packed into fewer bits while loading. Few
/// rows of packed weights, and on the CPU of bfloat16 ones, go through our own kernels, which read
/// each weight once; many go through our own products where the processor has instructions for
/// them, and else through libtorch's, for which packed weights are unpacked: on the CPU part by
/// part. Constant after construction, but for where the weights lie.
class Linear {
 public:
  /// Takes the parts, one below the other, to the source's device. More than one part makes a copy.
  Linear(TensorSource& source, const std::vector<LinearPart>& parts, int64_t inputs, bool bias,
         std::optional<Packing> packing);
  /// Uses weights that somebody else holds too, as they are.
  explicit Linear(at::Tensor weight) : weight_(std::move(weight)) {}

  /// x: [rows, inputs] → [rows, outputs] in x's type. A row's result does not depend on how many
  /// others there are as long as the same path is taken.
  at::Tensor forward(const at::Tensor& x) const;
  /// The same into `out`, on a GPU, without allocating memory. False, with nothing done, where that
  /// cannot be.
  bool forward_into(const at::Tensor& x, const at::Tensor& out) const;

  /// Of the weights.
  int64_t bytes() const;
  /// On the CPU: takes the weights to memory that is read faster. False where there is none.
  bool move_weights(HugeMemory& memory);

  /// For kernels, on a GPU.
  GpuMatrix gpu_matrix() const;

  /// For products with several matrices at once, on the CPU; nothing where forward(x) would do
  /// something else.
  std::optional<ProductWeights> product_weights(const at::Tensor& x) const;

  /// For callers that share out the work themselves, on the CPU: the sums of what is laid out, and
  /// the bias, rounded once are forward() of so many bfloat16 rows. Nothing where forward() takes
  /// another way.
  std::optional<FewRowsWeights> few_rows_weights(int64_t rows) const;

 private:
  PackedShape shape() const;
  bool are_few(int64_t rows) const;
  bool goes_to_products(int64_t rows) const;
  void take_packed(TensorSource& source, const std::vector<LinearPart>& parts);
  static at::Tensor pack(TensorSource& source, const PackedShape& shape, const at::Tensor& stored);
  at::Tensor multiply_few(const at::Tensor& x, const PackedShape& shape,
                          const at::Tensor& weights) const;
  at::Tensor multiply_many(const at::Tensor& x) const;
  at::Tensor multiply_on_gpu(const at::Tensor& x) const;
  bool multiply_few_on_gpu(const CudaModule& module, const at::Tensor& x,
                           const at::Tensor& out) const;

  at::Tensor weight_;  // [outputs, inputs]; undefined where packed
  at::Tensor packed_;  // bytes: as packed_matrix.h has them on the CPU, as packed_index.h on a GPU
  at::Tensor scales_;  // bytes, on a GPU
  PackedShape shape_;
  bool in_bytes_ = false;
  at::Tensor bias_;  // [outputs] or undefined
};

/// Products of one x with several matrices: on a GPU one product with all of them joined, on the
/// CPU each has its own, so that weights may stay where the file is mapped. Constant after
/// construction, but for where the weights lie.
class LinearGroup {
 public:
  LinearGroup(TensorSource& source, const std::vector<LinearPart>& parts, int64_t inputs, bool bias,
              std::optional<Packing> packing);

  /// [rows, outputs] of each part; rows may lie further apart.
  std::vector<at::Tensor> forward(const at::Tensor& x) const;
  /// All parts one below the other, on a GPU.
  const Linear& joined() const { return linears_.front(); }
  std::vector<Linear>& parts() { return linears_; }
  const std::vector<Linear>& parts() const { return linears_; }

 private:
  std::vector<Linear> linears_;
  std::vector<int64_t> outputs_;
};

}  // namespace vlm
