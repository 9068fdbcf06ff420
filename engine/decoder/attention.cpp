// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>
#include <optional>

#include "base/device.h"
#include "cuda/tensor_ops.h"
#include "layers/attention.h"

namespace vlm {
namespace {

// Without cutting the past into parts, which takes memory of its own (gpu_step.h does).
bool attend_on_gpu(const CudaModule& module, const PagedAttentionArgs& args, at::Device device) {
  SplitAttentionArgs whole;
  whole.base = args;
  void* stream = current_stream(device);
  return module.split_attention(whole, stream) || module.paged_attention(args, stream);
}

}  // namespace

PagedAttentionArgs attention_shape(const TextConfig& config, KernelType type) {
  PagedAttentionArgs args;
  args.heads = config.heads;
  args.kv_heads = config.kv_heads;
  args.head_dim = config.head_dim;
  args.window = config.sliding_window;
  args.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  args.type = type;
  return args;
}

PagedAttentionArgs attention_args(const TextConfig& config, const at::Tensor& q,
                                  const at::Tensor& keys, const at::Tensor& values,
                                  const CachedRows& cached, const at::Tensor& out,
                                  KernelType type) {
  PagedAttentionArgs args = attention_shape(config, type);
  args.q = q.const_data_ptr();
  args.k_cache = keys.const_data_ptr();
  args.v_cache = values.const_data_ptr();
  args.out = out.mutable_data_ptr();
  args.slot_table = cached.slot_table.const_data_ptr<int32_t>();
  args.table_stride = cached.slot_table.stride(0);
  args.lengths = cached.lengths.const_data_ptr<int32_t>();
  args.rows = cached.rows();
  return args;
}

at::Tensor prompt_attention(const TextConfig& config, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v) {
  const AttentionHeads shape = {config.heads, config.kv_heads, config.head_dim, true,
                                config.sliding_window};
  return whole_attention(shape, 1, q.flatten(1), k.flatten(1), v.flatten(1));
}

at::Tensor cached_attention_generic(const TextConfig& config, const at::Tensor& q,
                                    const at::Tensor& keys, const at::Tensor& values,
                                    const CachedRows& cached) {
  const int64_t rows = cached.rows();
  const int64_t longest = cached.longest;
  const at::Tensor positions = at::arange(longest, cached.lengths.options()).unsqueeze(0);
  const at::Tensor lengths = cached.lengths.unsqueeze(1);
  at::Tensor visible = positions < lengths;  // [rows, longest]
  if (config.sliding_window > 0) {
    visible = visible.logical_and(positions >= lengths - config.sliding_window);
  }
  // Entries beyond a row's length may hold anything; slot 0 is always readable.
  const at::Tensor slots =
      cached.slot_table.narrow(1, 0, longest).masked_fill(visible.logical_not(), 0).flatten();
  // Slots that nobody wrote may hold NaN, which masking the scores alone would let through.
  const at::Tensor hidden = visible.logical_not().view({rows, 1, longest, 1});
  const auto gather = [&](const at::Tensor& cache) {  // [rows, kv_heads, longest, head_dim]
    return at::index_select(cache, 0, slots)
        .view({rows, longest, config.kv_heads, config.head_dim})
        .transpose(1, 2)
        .masked_fill(hidden, 0);
  };
  const at::Tensor mixed = at::scaled_dot_product_attention(
      q.unsqueeze(2), gather(keys), gather(values), visible.view({rows, 1, 1, longest}), 0.0, false,
      std::nullopt, config.heads != config.kv_heads);
  return mixed.reshape({rows, config.heads * config.head_dim});
}

at::Tensor cached_attention(const TextConfig& config, const at::Tensor& q, const at::Tensor& keys,
                            const at::Tensor& values, const CachedRows& cached) {
  const auto type = kernel_type(q.scalar_type());
  const bool on_cpu = q.is_cpu() && type && *type != KernelType::kFloat16;
  const CudaModule* module = module_for(q);
  if (!on_cpu && module == nullptr) {
    return cached_attention_generic(config, q, keys, values, cached);
  }
  const at::Tensor queries = q.contiguous();
  at::Tensor out = at::empty_like(queries);
  const PagedAttentionArgs args = attention_args(config, queries, keys, values, cached, out, *type);
  if (on_cpu) {
    paged_attention_cpu(args);
  } else if (!attend_on_gpu(*module, args, q.device())) {
    return cached_attention_generic(config, q, keys, values, cached);
  }
  return out.view({cached.rows(), config.heads * config.head_dim});
}

}  // namespace vlm
