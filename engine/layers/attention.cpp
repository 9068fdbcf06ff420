// SPDX-License-Identifier: LGPL-2.1-or-later
#include "layers/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/triu.h>

#include <cmath>
#include <optional>

#include "kernels/whole_attention.h"

namespace vlm {
namespace {

const uint16_t* halves(const at::Tensor& tensor) {
  return static_cast<const uint16_t*>(tensor.const_data_ptr());
}

at::Tensor by_kernel(const AttentionHeads& shape, int64_t sequences, const at::Tensor& q,
                     const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor out = at::empty(q.sizes(), q.options());
  WholeAttentionArgs args;
  args.q = halves(q);
  args.k = halves(k);
  args.v = halves(v);
  args.out = static_cast<uint16_t*>(out.mutable_data_ptr());
  args.q_stride = q.stride(0);
  args.k_stride = k.stride(0);
  args.v_stride = v.stride(0);
  args.sequences = sequences;
  args.rows = k.size(0) / sequences;
  args.queries = q.size(0) / sequences;
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.causal = shape.causal;
  args.window = shape.window;
  args.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  whole_attention_cpu(args);
  return out;
}

}  // namespace

at::Tensor whole_attention(const AttentionHeads& shape, int64_t sequences, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& v) {
  const bool dense_rows = q.stride(1) == 1 && k.stride(1) == 1 && v.stride(1) == 1;
  if (q.is_cpu() && q.scalar_type() == at::kBFloat16 && dense_rows && has_whole_attention()) {
    return by_kernel(shape, sequences, q, k, v);
  }
  const int64_t rows = q.size(0) / sequences, tokens = k.size(0) / sequences;
  const auto heads = [&](const at::Tensor& part) {  // [sequences, heads, rows or tokens, head_dim]
    return part.unflatten(1, {-1, shape.head_dim}).unflatten(0, {sequences, -1}).transpose(1, 2);
  };
  std::optional<at::Tensor> mask;
  const bool windowed = shape.window > 0 && shape.window < tokens;
  if (shape.causal && (windowed || rows < tokens)) {
    const int64_t before = tokens - rows;
    mask = at::ones({rows, tokens}, q.options().dtype(at::kBool)).tril(before);
    if (windowed) mask = mask->triu(before + 1 - shape.window);
  }
  const at::Tensor mixed = at::scaled_dot_product_attention(
      heads(q), heads(k), heads(v), mask, 0.0, shape.causal && !mask.has_value(), std::nullopt,
      shape.heads != shape.kv_heads);
  return mixed.transpose(1, 2).reshape(q.sizes());
}

}  // namespace vlm
