// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <numbers>

namespace vlm {
namespace {

// Long wavelengths are slowed by `factor`, short ones kept, the ones between interpolated.
at::Tensor scale_llama3(const at::Tensor& inv_freq, const RopeConfig& config, int64_t original) {
  const double length = static_cast<double>(original);
  const at::Tensor wavelength = at::reciprocal(inv_freq) * (2.0 * std::numbers::pi);
  const at::Tensor slowed = inv_freq / config.factor;
  const at::Tensor smooth = (at::reciprocal(wavelength) * length - config.low_freq_factor) /
                            (config.high_freq_factor - config.low_freq_factor);
  const at::Tensor between = (1.0 - smooth) * slowed + smooth * inv_freq;
  const at::Tensor is_long = wavelength > length / config.low_freq_factor;
  const at::Tensor is_short = wavelength < length / config.high_freq_factor;
  return at::where(is_long, slowed, at::where(is_short, inv_freq, between));
}

}  // namespace

Rope::Rope(const TextConfig& config, at::Device device)
    : config_(config.rope), max_positions_(config.max_positions), head_dim_(config.head_dim) {
  // Computed on the CPU, as the reference does: powers differ from device to device.
  const auto options = at::TensorOptions().dtype(at::kFloat);
  exponents_ = at::arange(0, head_dim_, 2, options) / static_cast<double>(head_dim_);
  inv_freq_ = at::reciprocal(at::pow(config_.theta, exponents_));
  if (config_.type == RopeConfig::Type::kLinear) inv_freq_ = inv_freq_ / config_.factor;
  if (config_.type == RopeConfig::Type::kLlama3) {
    inv_freq_ = scale_llama3(inv_freq_, config_, config_.original_max_positions);
  }
  exponents_ = exponents_.to(device);
  inv_freq_ = inv_freq_.to(device);
}

Rope::Angles Rope::angles(const at::Tensor& positions, const at::Tensor& lengths) const {
  at::Tensor inv_freq = inv_freq_.unsqueeze(0);
  if (config_.type == RopeConfig::Type::kDynamic) {
    const double trained = static_cast<double>(max_positions_);
    const at::Tensor stretch =
        lengths.clamp_min(max_positions_).to(at::kFloat) * (config_.factor / trained) -
        (config_.factor - 1.0);
    const double dim = static_cast<double>(head_dim_);
    const at::Tensor base = at::pow(stretch, dim / (dim - 2.0)) * config_.theta;
    inv_freq = at::reciprocal(at::pow(base.unsqueeze(1), exponents_.unsqueeze(0)));
  }
  const at::Tensor half = positions.to(at::kFloat).unsqueeze(1) * inv_freq;
  const at::Tensor full = at::cat({half, half}, 1).unsqueeze(1);
  return {full.cos(), full.sin()};
}

int64_t context_length(const TextConfig& config) {
  const bool stretched = config.rope.type == RopeConfig::Type::kLinear ||
                         config.rope.type == RopeConfig::Type::kDynamic;
  const double factor = stretched ? std::max(1.0, config.rope.factor) : 1.0;
  return static_cast<int64_t>(static_cast<double>(config.max_positions) * factor);
}

}  // namespace vlm
