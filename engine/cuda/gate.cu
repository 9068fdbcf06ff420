// SPDX-License-Identifier: LGPL-2.1-or-later
// One thread for each 16 bytes where rows allow it, else for each element.
#include "cuda/gate_function.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) gate_kernel(GateArgs args) {
  let_next_start();
  wait_for_inputs();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = blockIdx.y;
  if (i >= args.size) return;
  const float gate = widen(static_cast<const T*>(args.gate)[row * args.gate_stride + i]);
  const float up = widen(static_cast<const T*>(args.up)[row * args.up_stride + i]);
  store(gated<T>(args.function, gate, up), static_cast<T*>(args.out) + row * args.size + i);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) gate_kernel_wide(GateArgs args) {
  constexpr int kWide = kPer16Bytes<T>;
  let_next_start();
  wait_for_inputs();
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWide;
  const int64_t row = blockIdx.y;
  if (i >= args.size) return;
  float gates[kWide], ups[kWide];
  const T* gate = static_cast<const T*>(args.gate) + row * args.gate_stride + i;
  const T* up = static_cast<const T*>(args.up) + row * args.up_stride + i;
  widen_all<T>(*reinterpret_cast<const uint4*>(gate), gates);
  widen_all<T>(*reinterpret_cast<const uint4*>(up), ups);
  uint4 bits;
  T* values = reinterpret_cast<T*>(&bits);
#pragma unroll
  for (int k = 0; k < kWide; ++k) store(gated<T>(args.function, gates[k], ups[k]), values + k);
  *reinterpret_cast<uint4*>(static_cast<T*>(args.out) + row * args.size + i) = bits;
}

bool aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace

bool gate_cuda(const GateArgs& args, void* stream) {
  constexpr int64_t kMaxGridY = 65535;
  if (args.rows < 1 || args.rows > kMaxGridY) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    constexpr int64_t kWide = kPer16Bytes<T>;
    const bool wide = args.size % kWide == 0 && args.gate_stride % kWide == 0 &&
                      args.up_stride % kWide == 0 && aligned(args.gate) && aligned(args.up) &&
                      aligned(args.out);
    const int64_t per_block = kThreads * (wide ? kWide : 1);
    const dim3 grid(static_cast<unsigned>((args.size + per_block - 1) / per_block),
                    static_cast<unsigned>(args.rows));
    return launch(wide ? gate_kernel_wide<T> : gate_kernel<T>, grid, kThreads, 0, stream, args);
  });
}

}  // namespace vlm
