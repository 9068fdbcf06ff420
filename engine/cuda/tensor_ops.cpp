// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda/tensor_ops.h"

#include <string>

#include "base/device.h"
#include "base/failure.h"

namespace vlm {

std::optional<KernelType> kernel_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return KernelType::kFloat32;
    case at::kBFloat16:
      return KernelType::kBFloat16;
    case at::kHalf:
      return KernelType::kFloat16;
    default:
      return std::nullopt;
  }
}

GateFunction gate_function(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return GateFunction::kGelu;
    case Activation::kGeluTanh:
      return GateFunction::kGeluTanh;
    case Activation::kQuickGelu:
      return GateFunction::kQuickGelu;
    case Activation::kRelu:
      return GateFunction::kRelu;
    case Activation::kSilu:
      break;
  }
  return GateFunction::kSilu;
}

const CudaModule* module_for(const at::Tensor& tensor) {
  return tensor.is_cuda() && kernel_type(tensor.scalar_type()) ? cuda_module() : nullptr;
}

void require(bool done, const char* what) {
  if (done) return;
  const CudaModule* module = cuda_module();
  throw gpu_failure(what, module != nullptr ? module->last_error() : "no module");
}

bool gpu_add_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                  double eps, const at::Tensor& sum, const at::Tensor& normed) {
  const CudaModule* module = module_for(x);
  if (module == nullptr || !x.is_contiguous() || !weight.is_contiguous()) return false;
  if (delta.defined() && !delta.is_contiguous()) return false;
  AddNormArgs args;
  args.x = x.const_data_ptr();
  args.delta = delta.defined() ? delta.const_data_ptr() : nullptr;
  args.sum = delta.defined() ? sum.mutable_data_ptr() : nullptr;
  args.weight = weight.const_data_ptr();
  args.out = normed.mutable_data_ptr();
  args.size = x.size(-1);
  args.rows = x.numel() / args.size;
  args.eps = static_cast<float>(eps);
  args.type = *kernel_type(x.scalar_type());
  return module->add_norm(args, current_stream(x.device()));
}

bool gpu_gate(const at::Tensor& gate, const at::Tensor& up, Activation activation,
              const at::Tensor& out) {
  const CudaModule* module = module_for(gate);
  if (module == nullptr || gate.dim() != 2 || gate.stride(1) != 1) return false;
  if (up.defined() && up.stride(1) != 1) return false;
  GateArgs args;
  args.gate = gate.const_data_ptr();
  args.up = up.defined() ? up.const_data_ptr() : nullptr;
  args.out = out.mutable_data_ptr();
  args.gate_stride = gate.stride(0);
  args.up_stride = up.defined() ? up.stride(0) : 0;
  args.rows = gate.size(0);
  args.size = gate.size(1);
  args.function = gate_function(activation);
  args.type = *kernel_type(gate.scalar_type());
  return module->gate(args, current_stream(gate.device()));
}

bool gpu_rotate_store(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const RotateTarget& target) {
  const CudaModule* module = module_for(q);
  if (module == nullptr) return false;
  for (const at::Tensor& part : {q, k, v}) {
    if (part.stride(2) != 1 || part.stride(1) != part.size(2)) return false;
  }
  RotateStoreArgs args;
  args.q = q.mutable_data_ptr();
  args.k = k.mutable_data_ptr();
  args.v = v.const_data_ptr();
  args.q_stride = q.stride(0);
  args.k_stride = k.stride(0);
  args.v_stride = v.stride(0);
  args.rows = q.size(0);
  args.target = target;
  args.type = *kernel_type(q.scalar_type());
  return module->rotate_store(args, current_stream(q.device()));
}

RotateTarget rotate_target(const TextConfig& config, const at::Tensor& cos, const at::Tensor& sin,
                           const at::Tensor& angles, const at::Tensor& slots,
                           const at::Tensor& keys, const at::Tensor& values) {
  RotateTarget target;
  target.cos = cos.const_data_ptr();
  target.sin = sin.const_data_ptr();
  target.angles = angles.defined() ? angles.const_data_ptr<int64_t>() : nullptr;
  target.slots = slots.const_data_ptr<int64_t>();
  target.k_cache = keys.mutable_data_ptr();
  target.v_cache = values.mutable_data_ptr();
  target.heads = config.heads;
  target.kv_heads = config.kv_heads;
  target.head_dim = config.head_dim;
  return target;
}

}  // namespace vlm
