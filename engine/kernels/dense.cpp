// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/dense.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/product.h"

namespace vlm {
namespace {

// Unpacked at a time: stays in the cache until the product has read it, yet is large enough that
// reading x anew for each part costs little.
constexpr int64_t kPartWeights = int64_t{1} << 20;

std::vector<int64_t> output_sizes(const at::Tensor& x, int64_t outputs) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = outputs;
  return sizes;
}

const uint16_t* halves(const at::Tensor& tensor) {
  return static_cast<const uint16_t*>(tensor.const_data_ptr());
}

}  // namespace

bool multiplies_halves(at::ScalarType type) {
#if defined(__x86_64__)
  return type == at::kBFloat16 && has_avx512_words();
#else
  // On Arm it rounds the sums of parts of long rows, too.
  static_cast<void>(type);
  return false;
#endif
}

at::Tensor dense(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType type = x.scalar_type();
  const bool half = type == at::kBFloat16 || type == at::kHalf;
  if (x.is_cpu() && type == at::kBFloat16 && !product_families().empty() &&
      weight.is_contiguous() && (!bias.defined() || bias.is_contiguous())) {
    return products(x,
                    {{{PackedFormat::kBFloat16, weight.size(0), weight.size(1)}, weight, bias}})[0];
  }
  // libtorch rounds before it adds the bias, too, where x is not contiguous.
  if (!x.is_cpu() || !half || multiplies_halves(type)) {
    return at::linear(x.contiguous(), weight, bias);
  }
  return dense_by_parts(x, weight.size(0), bias, [&](int64_t first, const at::Tensor& rows) {
    rows.copy_(weight.narrow(0, first, rows.size(0)));
  });
}

std::vector<at::Tensor> products(const at::Tensor& x, const std::vector<ProductWeights>& weights) {
  const at::Tensor whole = x.contiguous();
  std::vector<at::Tensor> results;
  std::vector<ProductArgs> all;
  for (const ProductWeights& one : weights) {
    results.push_back(at::empty(output_sizes(x, one.shape.outputs), x.options()));
    ProductArgs& args = all.emplace_back();
    args.shape = one.shape;
    args.weights = static_cast<const std::byte*>(one.weights.const_data_ptr());
    args.x = halves(whole);
    args.bias = one.bias.defined() ? halves(one.bias) : nullptr;
    args.y = static_cast<uint16_t*>(results.back().mutable_data_ptr());
    args.rows = whole.numel() / one.shape.inputs;
  }
  const ProductFamily& family =
      weights.front().in_bytes ? *byte_products() : product_families().front();
  family.product(all);
  return results;
}

at::Tensor dense_by_parts(const at::Tensor& x, int64_t outputs, const at::Tensor& bias,
                          UnpackRows unpack) {
  const int64_t inputs = x.size(-1);
  const at::Tensor wide = x.reshape({-1, inputs}).to(at::kFloat).contiguous();
  const at::Tensor wide_bias = bias.defined() ? bias.to(at::kFloat) : bias;
  at::Tensor y = at::empty({wide.size(0), outputs}, x.options());
  const int64_t step =
      std::clamp<int64_t>(kPartWeights / inputs, 16, std::max<int64_t>(outputs, 16));
  const at::Tensor part = at::empty({step, inputs}, wide.options());
  for (int64_t first = 0; first < outputs; first += step) {
    const int64_t count = std::min(step, outputs - first);
    const at::Tensor rows = part.narrow(0, 0, count);
    unpack(first, rows);
    at::Tensor sums = at::mm(wide, rows.t());
    if (bias.defined()) sums.add_(wide_bias.narrow(0, first, count));
    y.narrow(1, first, count).copy_(sums);
  }
  return y.view(output_sizes(x, outputs));
}

}  // namespace vlm
