// SPDX-License-Identifier: LGPL-2.1-or-later
#include "layers/linear.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/ceil_div.h"
#include "base/device.h"
#include "cuda/packed_index.h"
#include "cuda/tensor_ops.h"
#include "kernels/convert.h"
#include "kernels/cpu.h"
#include "kernels/dense.h"
#include "kernels/product.h"
#include "kernels/shares.h"

namespace vlm {
namespace {

// So many rows of x at most our kernels that read each weight once take in less time than libtorch
// does: where it has no fast product of the weights' type, and where it has one.
constexpr int64_t kFewRows = 32;
constexpr int64_t kFewRowsOfFastType = 4;
// The same with AVX-512; packed weights they always multiply in less time there.
constexpr int64_t kFewRowsOfAvx512 = 64;
// The same where the others go through our own products: of matrix units, of AVX-512 in bfloat16
// and in bytes, and of AVX2 likewise.
struct FewRows {
  int64_t bfloat16, int8, int4;

  int64_t of(PackedFormat format) const {
    return format == PackedFormat::kBFloat16 ? bfloat16
           : format == PackedFormat::kInt8   ? int8
                                             : int4;
  }
};
constexpr FewRows kFewRowsOfUnits = {0, 12, 8}, kFewRowsOfHalves = {kFewRowsOfAvx512, 96, 32},
                  kFewRowsOfBytes = {kFewRowsOfAvx512, 16, 20}, kFewRowsOfAvx2 = {16, 24, 28},
                  kFewRowsOfAvx2Bytes = {16, 24, kFewRows};
// Without AVX-512 more packed ones are unpacked where no products of our own take them.
static_assert(std::max({kFewRowsOfAvx2.int8, kFewRowsOfAvx2.int4, kFewRowsOfAvx2Bytes.int8,
                        kFewRowsOfAvx2Bytes.int4}) <= kFewRows);
// Widened at a time by each thread that packs, in its cache.
constexpr int64_t kWidenedWeights = int64_t{1} << 15;
// So many times that a thread takes at once, at most: large pages have one thread each, mostly.
constexpr int64_t kMostPieces = 64;
// Unpacked at a time by each thread.
constexpr int64_t kRowsPerTask = 8;

const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.const_data_ptr());
}

const FewRows& few_rows_beside_products(bool in_bytes) {
  if (has_matrix_units()) return kFewRowsOfUnits;
  if (!has_avx512_bfloat16()) return in_bytes ? kFewRowsOfAvx2Bytes : kFewRowsOfAvx2;
  return in_bytes ? kFewRowsOfBytes : kFewRowsOfHalves;
}

int64_t few_rows_of_packed() {
  return has_avx512() ? std::numeric_limits<int64_t>::max() : kFewRows;
}

int64_t few_rows_of_bfloat16() {
  if (!multiplies_halves(at::kBFloat16)) return kFewRows;
  return has_avx512() ? kFewRowsOfAvx512 : kFewRowsOfFastType;
}

}  // namespace

Linear::Linear(TensorSource& source, const std::vector<LinearPart>& parts, int64_t inputs,
               bool bias, std::optional<Packing> packing) {
  if (packing) {
    shape_ = {packing->format, 0, inputs};
    in_bytes_ = packing->in_bytes;
    take_packed(source, parts);
  }
  std::vector<at::Tensor> weights, biases;
  for (const LinearPart& part : parts) {
    if (!packing) weights.push_back(source.take(part.name + ".weight", {part.outputs, inputs}));
    if (bias) biases.push_back(source.take(part.name + ".bias", {part.outputs}));
  }
  const auto joined = [](const std::vector<at::Tensor>& all) {
    return all.size() == 1 ? all[0] : at::cat(all);
  };
  if (!weights.empty()) weight_ = joined(weights);
  if (!biases.empty()) bias_ = joined(biases);
}

// On the CPU a part is packed where it stays, so there may be only one.
void Linear::take_packed(TensorSource& source, const std::vector<LinearPart>& parts) {
  for (const LinearPart& part : parts) shape_.outputs += part.outputs;
  const bool on_gpu = !source.device().is_cpu();
  if (on_gpu) {
    const auto options = at::TensorOptions().dtype(at::kByte).device(source.device());
    packed_ = at::empty({shape_.outputs, gpu_row_bytes(shape_.format, shape_.inputs)}, options);
    scales_ = at::empty({shape_.outputs, gpu_scale_bytes(shape_.format, shape_.inputs)}, options);
  }
  int64_t first = 0;
  for (const LinearPart& part : parts) {
    const PackedShape shape = {shape_.format, part.outputs, shape_.inputs};
    const at::Tensor rows = pack(
        source, shape, source.take_stored(part.name + ".weight", {part.outputs, shape_.inputs}));
    if (!on_gpu) {
      packed_ = rows;
      break;
    }
    const at::Tensor sent = rows.to(source.device());
    const RepackArgs args = {sent.const_data_ptr(),
                             packed_.narrow(0, first, part.outputs).mutable_data_ptr(),
                             scales_.narrow(0, first, part.outputs).mutable_data_ptr(), shape};
    const CudaModule* module = cuda_module();
    require(module != nullptr && module->repack(args, current_stream(source.device())),
            "packing weights");
    first += part.outputs;
  }
  source.count_held(packed_);
  if (on_gpu) source.count_held(scales_);
}

at::Tensor Linear::pack(TensorSource& source, const PackedShape& shape, const at::Tensor& stored) {
  const at::Tensor result = source.make({shape.bytes()}, at::kByte);
  auto* packed = static_cast<std::byte*>(result.mutable_data_ptr());
  const int64_t rows = std::max<int64_t>(1, kWidenedWeights / shape.inputs);
  const int64_t stored_row = shape.inputs * static_cast<int64_t>(stored.element_size());
  const KernelType type = *kernel_type(stored.scalar_type());
  Shares shares(ceil_div(shape.outputs, rows), kMostPieces);
  shares.spread([&] {
    std::vector<float> wide(static_cast<size_t>(rows * shape.inputs));
    for (Shares::Piece at = shares.claim(); at.count > 0; at = shares.claim()) {
      const int64_t end = std::min((at.first + at.count) * rows, shape.outputs);
      for (int64_t first = at.first * rows; first < end; first += rows) {
        const int64_t count = std::min(rows, end - first);
        convert_values(type, bytes_of(stored) + first * stored_row, KernelType::kFloat32,
                       wide.data(), count * shape.inputs);
        pack_rows(shape, wide.data(), count, packed + first * shape.row_bytes());
      }
    }
  });
  return result;
}

int64_t Linear::bytes() const {
  return static_cast<int64_t>(packed_.defined() ? packed_.nbytes() : weight_.nbytes());
}

bool Linear::move_weights(HugeMemory& memory) {
  at::Tensor& weights = packed_.defined() ? packed_ : weight_;
  // A table that is somebody else's, too, would be there twice.
  if (!weights.is_cpu() || !weights.is_contiguous() || weights.use_count() > 1) return true;
  if (HugeMemory::holds(weights)) return true;
  const at::Tensor moved = memory.take(weights.sizes(), weights.scalar_type());
  if (!moved.defined()) return false;
  weights = moved.copy_(weights);
  return true;
}

GpuMatrix Linear::gpu_matrix() const {
  GpuMatrix matrix;
  matrix.packed = packed_.defined();
  matrix.weights = matrix.packed ? packed_.const_data_ptr() : weight_.const_data_ptr();
  matrix.scales = scales_.defined() ? scales_.const_data_ptr() : nullptr;
  matrix.bias = bias_.defined() ? bias_.const_data_ptr() : nullptr;
  matrix.outputs = matrix.packed ? shape_.outputs : weight_.size(0);
  matrix.inputs = matrix.packed ? shape_.inputs : weight_.size(1);
  matrix.format = shape_.format;
  return matrix;
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  if (packed_.defined() && packed_.is_cuda()) return multiply_on_gpu(x);
  if (const auto weights = product_weights(x)) return products(x, {*weights})[0];
  if (packed_.defined()) {
    // The few rows that product_weights() leaves over are few for this, too.
    return are_few(x.size(0)) ? multiply_few(x, shape_, packed_) : multiply_many(x);
  }
  if (!x.is_cpu() || !are_few(x.size(0))) return dense(x, weight_, bias_);
  return multiply_few(x, shape(), weight_);
}

PackedShape Linear::shape() const {
  if (packed_.defined()) return shape_;
  return {PackedFormat::kBFloat16, weight_.size(0), weight_.size(1)};
}

bool Linear::are_few(int64_t rows) const {
  if (packed_.defined()) return rows <= few_rows_of_packed();
  return weight_.scalar_type() == at::kBFloat16 && weight_.is_contiguous() &&
         rows <= few_rows_of_bfloat16();
}

bool Linear::goes_to_products(int64_t rows) const {
  if (product_families().empty()) return false;
  if (!packed_.defined() && !weight_.is_contiguous()) return false;
  return rows > few_rows_beside_products(in_bytes_).of(shape().format);
}

std::optional<FewRowsWeights> Linear::few_rows_weights(int64_t rows) const {
  const at::Tensor& weights = packed_.defined() ? packed_ : weight_;
  if (!weights.is_cpu() || goes_to_products(rows) || !are_few(rows)) return {};
  if (bias_.defined() && bias_.scalar_type() != at::kBFloat16) return {};
  const auto* bias =
      bias_.defined() ? static_cast<const uint16_t*>(bias_.const_data_ptr()) : nullptr;
  return FewRowsWeights{shape(), bytes_of(weights), bias, in_bytes_};
}

std::optional<ProductWeights> Linear::product_weights(const at::Tensor& x) const {
  if (!x.is_cpu() || x.scalar_type() != at::kBFloat16 || !goes_to_products(x.size(0))) return {};
  if (packed_.defined()) return ProductWeights{shape_, packed_, bias_, in_bytes_};
  return ProductWeights{shape(), weight_, bias_};
}

at::Tensor Linear::multiply_few(const at::Tensor& x, const PackedShape& shape,
                                const at::Tensor& weights) const {
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({x.size(0), shape.outputs}, wide.options());
  matvec_cpu({shape, bytes_of(weights), wide.const_data_ptr<float>(), y.mutable_data_ptr<float>(),
              x.size(0), in_bytes_});
  if (bias_.defined()) y.add_(bias_);
  return y.to(x.scalar_type());
}

at::Tensor Linear::multiply_many(const at::Tensor& x) const {
  const auto unpack = [&](int64_t first, const at::Tensor& rows) {
    auto* weights = rows.mutable_data_ptr<float>();
    at::parallel_for(0, rows.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
      unpack_rows(shape_, bytes_of(packed_) + (first + begin) * shape_.row_bytes(), end - begin,
                  weights + begin * shape_.inputs);
    });
  };
  return dense_by_parts(x, shape_.outputs, bias_, unpack);
}

at::Tensor Linear::multiply_on_gpu(const at::Tensor& x) const {
  if (x.size(0) <= kMatVecRowsOnGpu) {
    const at::Tensor y = at::empty({x.size(0), shape_.outputs}, x.options());
    if (forward_into(x, y)) return y;
  }
  const at::Tensor weights = at::empty({shape_.outputs, shape_.inputs}, x.options());
  UnpackArgs args;
  args.matrix = gpu_matrix();
  args.out = weights.mutable_data_ptr();
  const CudaModule* module = module_for(x);
  if (module != nullptr) args.type = *kernel_type(x.scalar_type());
  require(module != nullptr && module->unpack(args, current_stream(x.device())),
          "unpacking weights");
  return dense(x, weights, bias_);
}

bool Linear::forward_into(const at::Tensor& x, const at::Tensor& out) const {
  const CudaModule* module = module_for(x);
  if (module == nullptr || !x.is_contiguous()) return false;
  if (packed_.defined() || x.size(0) <= kFewRowsOnGpu) {
    if (multiply_few_on_gpu(*module, x, out)) return true;
    if (packed_.defined()) return false;
  }
  at::Tensor result = out;
  at::mm_out(result, x, weight_.t());
  if (bias_.defined()) result.add_(bias_);
  return true;
}

bool Linear::multiply_few_on_gpu(const CudaModule& module, const at::Tensor& x,
                                 const at::Tensor& out) const {
  GpuMatVecArgs args;
  args.matrix = gpu_matrix();
  args.type = *kernel_type(x.scalar_type());
  for (int64_t row = 0; row < x.size(0); row += args.rows) {
    args.rows = std::min(kMatVecRowsOnGpu, x.size(0) - row);
    args.x = x.select(0, row).const_data_ptr();
    args.out = out.select(0, row).mutable_data_ptr();
    if (!module.matvec(args, current_stream(x.device()))) return false;
  }
  return true;
}

LinearGroup::LinearGroup(TensorSource& source, const std::vector<LinearPart>& parts, int64_t inputs,
                         bool bias, std::optional<Packing> packing) {
  for (const LinearPart& part : parts) outputs_.push_back(part.outputs);
  if (!source.device().is_cpu()) {
    linears_.emplace_back(source, parts, inputs, bias, packing);
    return;
  }
  for (const LinearPart& part : parts) {
    linears_.emplace_back(source, std::vector<LinearPart>{part}, inputs, bias, packing);
  }
}

std::vector<at::Tensor> LinearGroup::forward(const at::Tensor& x) const {
  if (linears_.size() == 1) return linears_[0].forward(x).split_with_sizes(outputs_, 1);
  std::vector<ProductWeights> weights;
  std::vector<at::Tensor> results;
  for (const Linear& linear : linears_) {
    if (auto own = linear.product_weights(x)) weights.push_back(*std::move(own));
  }
  if (weights.size() == linears_.size()) return products(x, weights);
  for (const Linear& linear : linears_) results.push_back(linear.forward(x));
  return results;
}

}  // namespace vlm
