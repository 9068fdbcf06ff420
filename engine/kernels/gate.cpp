// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/gate.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include <cstring>
#include <type_traits>

#include "kernels/cpu.h"
#include "kernels/lanes.h"
#include "kernels/row_steps.h"

namespace vlm {
namespace {

constexpr int64_t kElementsPerTask = int64_t{1} << 14;

template <int kLanes>
VLM_INLINE inline void sigmoid(Lanes<kLanes>& x) {
  x = -x;
  exponential<kLanes>(x);
  x = 1 / (1 + x);
}

template <Activation kActivation, int kLanes>
VLM_INLINE inline void activate(Lanes<kLanes>& x) {
  static_assert(kActivation == Activation::kSilu || kActivation == Activation::kQuickGelu);
  Lanes<kLanes> factor = x;
  if constexpr (kActivation == Activation::kQuickGelu) {
    factor = 1.702f * x;
    round_to<uint16_t, kLanes>(factor);
  }
  sigmoid<kLanes>(factor);
  if constexpr (kActivation == Activation::kQuickGelu) round_to<uint16_t, kLanes>(factor);
  x *= factor;
  round_to<uint16_t, kLanes>(x);
}

struct Gate {
  const uint16_t* gate;
  const uint16_t* up;  // or null
  uint16_t* out;
};

template <Activation kActivation, int kLanes>
VLM_INLINE inline void step(const Gate& args, int64_t at) {
  Lanes<kLanes> x, up;
  load<kLanes>(args.gate + at, x);
  activate<kActivation, kLanes>(x);
  if (args.up != nullptr) {
    load<kLanes>(args.up + at, up);
    x *= up;
  }
  store<kLanes>(x, args.out + at);
}

// The last elements, fewer than a register holds.
template <Activation kActivation, int kLanes>
VLM_INLINE inline void rest(const Gate& args, int64_t at, int64_t count) {
  uint16_t gate[kLanes] = {}, up[kLanes] = {}, out[kLanes];
  const auto bytes = static_cast<size_t>(count) * sizeof(uint16_t);
  std::memcpy(gate, args.gate + at, bytes);
  if (args.up != nullptr) std::memcpy(up, args.up + at, bytes);
  step<kActivation, kLanes>({gate, args.up != nullptr ? up : nullptr, out}, 0);
  std::memcpy(args.out + at, out, bytes);
}

template <Activation kActivation>
void run(const Gate& args, int64_t begin, int64_t end) {
  with_lanes([&]<int kLanes>(std::integral_constant<int, kLanes>) VLM_INLINE {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) step<kActivation, kLanes>(args, i);
    if (i < end) rest<kActivation, kLanes>(args, i, end - i);
  });
}

void run(Activation activation, const Gate& args, int64_t begin, int64_t end) {
  if (activation == Activation::kSilu) {
    run<Activation::kSilu>(args, begin, end);
  } else {
    run<Activation::kQuickGelu>(args, begin, end);
  }
}

}  // namespace

bool gates_rows(Activation activation) {
  return activation == Activation::kSilu || activation == Activation::kQuickGelu;
}

void gate_row(const uint16_t* gate, const uint16_t* up, int64_t count, Activation activation,
              uint16_t* out) {
  run(activation, {gate, up, out}, 0, count);
}

at::Tensor gate_cpu(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  if (!gates_rows(activation) || !gate.is_cpu() || gate.scalar_type() != at::kBFloat16 ||
      !gate.is_contiguous() || (up.defined() && !up.is_contiguous())) {
    return {};
  }
  const at::Tensor out = at::empty_like(gate);
  const auto halves = [](const at::Tensor& tensor) {
    return static_cast<const uint16_t*>(tensor.const_data_ptr());
  };
  const Gate args = {halves(gate), up.defined() ? halves(up) : nullptr,
                     static_cast<uint16_t*>(out.mutable_data_ptr())};
  at::parallel_for(0, gate.numel(), kElementsPerTask,
                   [&](int64_t begin, int64_t end) { run(activation, args, begin, end); });
  return out;
}

}  // namespace vlm
