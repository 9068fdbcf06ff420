// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/linear.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "kernels/dense.h"

namespace vlm {
namespace {

// So many rows of x at most our own kernels take in less time than libtorch does: where it has no
// fast product of the weights' type, and where it has one.
constexpr int64_t kFewRows = 32;
constexpr int64_t kFewRowsOfFastType = 4;
// Widened at a time by each thread that packs.
constexpr int64_t kWidenedWeights = int64_t{1} << 18;
// Unpacked at a time by each thread.
constexpr int64_t kRowsPerTask = 8;

const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.const_data_ptr());
}

}  // namespace

Linear::Linear(TensorSource& source, const std::string& name, int64_t outputs, int64_t inputs,
               bool bias, std::optional<PackedFormat> format) {
  if (format) {
    shape_ = {*format, outputs, inputs};
    pack(source.take_stored(name + ".weight", {outputs, inputs}));
    source.count_held(packed_);
  } else {
    weight_ = source.take(name + ".weight", {outputs, inputs});
  }
  if (bias) bias_ = source.take(name + ".bias", {outputs});
}

void Linear::pack(const at::Tensor& stored) {
  packed_ = at::empty({shape_.bytes()}, at::kByte);
  auto* packed = static_cast<std::byte*>(packed_.mutable_data_ptr());
  const int64_t rows = std::max<int64_t>(1, kWidenedWeights / shape_.inputs);
  at::parallel_for(0, shape_.outputs, rows, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += rows) {
      const int64_t count = std::min(rows, end - first);
      const at::Tensor part = stored.narrow(0, first, count).to(at::kFloat).contiguous();
      pack_rows(shape_, part.const_data_ptr<float>(), count, packed + first * shape_.row_bytes());
    }
  });
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  if (packed_.defined()) {
    return x.size(0) <= kFewRows ? multiply_few(x, shape_, packed_) : multiply_many(x);
  }
  const int64_t few = multiplies_halves(at::kBFloat16) ? kFewRowsOfFastType : kFewRows;
  const bool ours = x.is_cpu() && weight_.scalar_type() == at::kBFloat16 && x.size(0) <= few &&
                    weight_.is_contiguous();
  if (!ours) return dense(x, weight_, bias_);
  return multiply_few(x, {PackedFormat::kBFloat16, weight_.size(0), weight_.size(1)}, weight_);
}

at::Tensor Linear::multiply_few(const at::Tensor& x, const PackedShape& shape,
                                const at::Tensor& weights) const {
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  at::Tensor y = at::empty({x.size(0), shape.outputs}, wide.options());
  matvec_cpu({shape, bytes_of(weights), wide.const_data_ptr<float>(), y.mutable_data_ptr<float>(),
              x.size(0)});
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

}  // namespace vlm
