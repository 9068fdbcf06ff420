// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

namespace vlm {

/// A tensor of fixed size that the host fills and the device reads: one and the same on the CPU,
/// else pinned memory and its copy. Never reallocated, so that a captured step may read it.
/// Thread-bound.
struct DeviceBuffer {
  at::Tensor host, device;

  static DeviceBuffer make(at::IntArrayRef shape, at::ScalarType type, at::Device on) {
    const auto options = at::TensorOptions().dtype(type);
    if (on.is_cpu()) {
      const at::Tensor both = at::empty(shape, options);
      return {both, both};
    }
    return {at::empty(shape, options.pinned_memory(true)), at::empty(shape, options.device(on))};
  }

  /// The first `rows` rows on the device.
  at::Tensor rows(int64_t count) const { return device.narrow(0, 0, count); }
  /// Sends those; the host may write again when the device has finished the step.
  void send(int64_t count) const {
    if (!host.is_same(device)) rows(count).copy_(host.narrow(0, 0, count), /*non_blocking=*/true);
  }
};

}  // namespace vlm
