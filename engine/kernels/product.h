// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/packed_matrix.h"

namespace vlm {

/// y = x · Wᵀ + b for bfloat16 x of any number of rows. All pointers lie on the CPU.
struct ProductArgs {
  PackedShape shape;
  const std::byte* weights = nullptr;  ///< [outputs] rows of shape.row_bytes()
  const uint16_t* x = nullptr;         ///< bfloat16 [rows, inputs]
  const uint16_t* bias = nullptr;      ///< bfloat16 [outputs], or null
  uint16_t* y = nullptr;               ///< bfloat16 [rows, outputs]
  int64_t rows = 0;
};

/// One processor's way: weights become bfloat16 part by part (int4's rounded once more), products
/// are summed in float32, scaled, biased and rounded once. Values below the smallest normal number
/// count as 0. A row's result does not depend on the other rows. Spreads the outputs over
/// libtorch's threads. Reentrant.
struct ProductFamily {
  const char* name;
  /// One or more, of the same x, rows, inputs and format.
  void (*product)(const std::vector<ProductArgs>&);
};
/// Those that run here, the fastest first; none where the processor multiplies no bfloat16.
/// Reentrant.
const std::vector<ProductFamily>& product_families();

/// The same of weights in 8 or 4 bits with x in 8 bits: 128 inputs of a row share a scale, chosen
/// so that the largest is met exactly, and int4's weights become 8 bits of their row's largest.
/// Null where the processor has no such instructions. Reentrant.
const ProductFamily* byte_products();

/// Whether the fastest one uses matrix units, of which the operating system has to be asked for
/// first. Reentrant.
bool has_matrix_units();

}  // namespace vlm
