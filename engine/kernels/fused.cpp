// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/fused.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cuda/tensor_ops.h"
#include "kernels/activation.h"
#include "kernels/bfloat16.h"
#include "kernels/cpu.h"
#include "kernels/gate.h"
#include "kernels/lanes.h"
#include "kernels/row_steps.h"

namespace vlm {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kElementsPerTask = int64_t{1} << 14;

template <typename T>
struct NormRows {
  const T* x;
  const T* delta;  // added to x first, the sums to `sum`; or null
  T* sum;
  const T* weight;
  T* out;
  int64_t size;
  float eps;
};

template <typename T>
struct RotateRows {
  const T* x;
  const T* cos;
  const T* sin;
  T* out;
  int64_t heads, head_dim;
};

template <typename T>
VLM_INLINE inline float rounded(float value) {
  T narrowed;
  narrow(value, &narrowed);
  return widen(narrowed);
}

// Lanes of partial sums let the compiler use vector registers without reordering the sums itself.
template <typename T>
VLM_INLINE inline float square_sum(const T* x, int64_t size) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = widen(x[i + lane]);
      lanes[lane] += value * value;
    }
  }
  float sum = 0;
  for (; i < size; ++i) sum += widen(x[i]) * widen(x[i]);
  for (const float lane : lanes) sum += lane;
  return sum;
}

template <typename T>
VLM_INLINE inline void norm_rows(const NormRows<T>& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = args.x + row * args.size;
    T* out = args.out + row * args.size;
    if (args.delta != nullptr) {
      const T* delta = args.delta + row * args.size;
      T* sum = args.sum + row * args.size;
      for (int64_t i = 0; i < args.size; ++i) narrow(widen(x[i]) + widen(delta[i]), sum + i);
      x = sum;
    }
    const float mean = square_sum(x, args.size) / static_cast<float>(args.size);
    const float scale = 1 / std::sqrt(mean + args.eps);
    for (int64_t i = 0; i < args.size; ++i) {
      narrow(widen(args.weight[i]) * rounded<T>(widen(x[i]) * scale), out + i);
    }
  }
}

// Some elements of a head's first half and those of the second that they are turned with.
template <int kLanes, typename T>
VLM_INLINE inline void rotate_lanes(const T* x, const T* cos, const T* sin, T* out, int64_t half) {
  Lanes<kLanes> low, high, low_cos, low_sin, high_cos, high_sin;
  load<kLanes>(x, low);
  load<kLanes>(x + half, high);
  load<kLanes>(cos, low_cos);
  load<kLanes>(sin, low_sin);
  load<kLanes>(cos + half, high_cos);
  load<kLanes>(sin + half, high_sin);
  Lanes<kLanes> across = -high * low_sin;
  high_sin *= low;
  low *= low_cos;
  high *= high_cos;
  round_to<T, kLanes>(across);
  round_to<T, kLanes>(high_sin);
  round_to<T, kLanes>(low);
  round_to<T, kLanes>(high);
  store<kLanes>(low + across, out);
  store<kLanes>(high + high_sin, out + half);
}

template <typename T>
VLM_INLINE inline void rotate_one(const T* x, const T* cos, const T* sin, T* out, int64_t half) {
  const float low = widen(x[0]), high = widen(x[half]);
  narrow(rounded<T>(low * widen(cos[0])) + rounded<T>(-high * widen(sin[0])), out);
  narrow(rounded<T>(high * widen(cos[half])) + rounded<T>(low * widen(sin[half])), out + half);
}

template <int kLanes, typename T>
VLM_INLINE inline void rotate_rows(const RotateRows<T>& args, int64_t begin, int64_t end) {
  const int64_t dim = args.head_dim, half = dim / 2;
  for (int64_t head = begin; head < end; ++head) {
    const T* x = args.x + head * dim;
    const T* cos = args.cos + head / args.heads * dim;
    const T* sin = args.sin + head / args.heads * dim;
    T* out = args.out + head * dim;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      rotate_lanes<kLanes>(x + i, cos + i, sin + i, out + i, half);
    }
    for (; i < half; ++i) rotate_one(x + i, cos + i, sin + i, out + i, half);
  }
}

bool one_pass(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

template <typename T>
const T* data(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

// Spreads `kernel(begin, end)` over `count` rows of `row_size` elements.
template <typename Kernel>
void over_rows(int64_t count, int64_t row_size, const Kernel& kernel) {
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, row_size));
  at::parallel_for(0, count, grain, kernel);
}

template <typename T>
T* mutable_data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

// `delta` and `sum` may be undefined.
template <typename T>
void norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight, double eps,
          const at::Tensor& sum, const at::Tensor& out) {
  const int64_t size = x.size(-1);
  const NormRows<T> args = {data<T>(x),
                            delta.defined() ? data<T>(delta) : nullptr,
                            mutable_data<T>(sum),
                            data<T>(weight),
                            mutable_data<T>(out),
                            size,
                            static_cast<float>(eps)};
  over_rows(x.numel() / size, size, [&](int64_t begin, int64_t end) {
    with_vectors([&]() VLM_INLINE { norm_rows(args, begin, end); });
  });
}

void norm_in_one_pass(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                      double eps, const at::Tensor& sum, const at::Tensor& out) {
  if (x.scalar_type() == at::kFloat) {
    norm<float>(x, delta, weight, eps, sum, out);
  } else {
    norm<uint16_t>(x, delta, weight, eps, sum, out);
  }
}

template <typename T>
void turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
          const at::Tensor& out) {
  const RotateRows<T> args = {data<T>(x),   data<T>(cos),
                              data<T>(sin), static_cast<T*>(out.mutable_data_ptr()),
                              x.size(1),    x.size(2)};
  over_rows(x.size(0) * x.size(1), x.size(2), [&](int64_t begin, int64_t end) {
    with_lanes([&]<int kLanes>(std::integral_constant<int, kLanes>)
                   VLM_INLINE { rotate_rows<kLanes>(args, begin, end); });
  });
}

}  // namespace

void add_norm_row(uint16_t* x, const uint16_t* delta, const uint16_t* weight, int64_t size,
                  double eps, uint16_t* out) {
  const NormRows<uint16_t> args = {x, delta, x, weight, out, size, static_cast<float>(eps)};
  with_vectors([&]() VLM_INLINE { norm_rows(args, 0, 1); });
}

void rotate_row(const uint16_t* x, const uint16_t* cos, const uint16_t* sin, int64_t heads,
                int64_t head_dim, uint16_t* out) {
  const RotateRows<uint16_t> args = {x, cos, sin, out, heads, head_dim};
  with_lanes([&]<int kLanes>(std::integral_constant<int, kLanes>)
                 VLM_INLINE { rotate_rows<kLanes>(args, 0, heads); });
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (x.is_cuda()) {
    const at::Tensor normed = at::empty_like(x);
    if (gpu_add_norm(x, {}, weight, eps, {}, normed)) return normed;
  }
  if (!one_pass(x)) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + eps);
    return weight * (wide * scale).to(x.scalar_type());
  }
  const at::Tensor whole = x.contiguous(), factors = weight.contiguous();
  const at::Tensor out = at::empty_like(whole);
  norm_in_one_pass(whole, {}, factors, eps, {}, out);
  return out;
}

Normed add_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                double eps) {
  if (x.is_cuda()) {
    const Normed both = {at::empty_like(x), at::empty_like(x)};
    if (gpu_add_norm(x, delta, weight, eps, both.sum, both.normed)) return both;
  }
  if (one_pass(x) && x.is_contiguous() && delta.is_contiguous() && weight.is_contiguous()) {
    const Normed both = {at::empty_like(x), at::empty_like(x)};
    norm_in_one_pass(x, delta, weight, eps, both.sum, both.normed);
    return both;
  }
  const at::Tensor sum = x + delta;
  return {sum, rms_norm(sum, weight, eps)};
}

at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  if (gate.is_cuda()) {
    const at::Tensor out = at::empty(gate.sizes(), gate.options());
    if (gpu_gate(gate, up, activation, out)) return out;
  }
  if (const at::Tensor out = gate_cpu(gate, up, activation); out.defined()) return out;
  return activate(gate, activation) * up;
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (!one_pass(x)) {
    const int64_t half = x.size(-1) / 2;
    const at::Tensor rotated = at::cat({-x.slice(-1, half), x.slice(-1, 0, half)}, -1);
    return x * cos + rotated * sin;
  }
  const at::Tensor whole = x.contiguous();
  const at::Tensor cosines = cos.contiguous(), sines = sin.contiguous();
  const at::Tensor out = at::empty_like(whole);
  if (x.scalar_type() == at::kFloat) {
    turn<float>(whole, cosines, sines, out);
  } else {
    turn<uint16_t>(whole, cosines, sines, out);
  }
  return out;
}

}  // namespace vlm
