// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "loader/config.h"

namespace vlm {

/// Rotary position embedding with its scalings (transformers modeling_rope_utils.py). Constant
/// after construction.
class Rope {
 public:
  struct Angles {
    at::Tensor cos, sin;  ///< [rows, 1, head_dim], float32
  };

  Rope(const TextConfig& config, at::Device device);

  /// `positions` int64 [rows]; `lengths` int64 [rows]: tokens of the sequence that the row belongs
  /// to, which only the dynamic scaling looks at.
  Angles angles(const at::Tensor& positions, const at::Tensor& lengths) const;

 private:
  RopeConfig config_;
  int64_t max_positions_;
  int64_t head_dim_;
  at::Tensor exponents_;  ///< float32 [head_dim / 2]: 2i / head_dim
  at::Tensor inv_freq_;   ///< float32 [head_dim / 2]
};

/// Tokens that a sequence may have: the trained positions, stretched by a scaling that means to.
int64_t context_length(const TextConfig& config);

}  // namespace vlm
