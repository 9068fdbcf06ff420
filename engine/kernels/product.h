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

/// How factors become whole numbers where weights in few bits meet x in such.
struct ProductRounding {
  int64_t inputs = 0;  ///< of a row of x, that share a scale; 0: x is taken as it is
  int most_of_x = 0;   ///< what the largest of them becomes
  /// What the largest of an int4 row becomes, the others to within one; 0: its levels and scales
  /// are taken as they are.
  int most_of_int4 = 0;
};

/// One processor's way: weights become bfloat16 or float32 part by part (int4's rounded once more),
/// or they and x whole numbers (ProductRounding); products are summed in float32, scaled, biased
/// and rounded once. Values below the smallest normal number may count as 0. A row's result does
/// not depend on the other rows. Spreads the outputs over libtorch's threads. Reentrant.
struct ProductFamily {
  const char* name;
  /// One or more, of the same x, rows, inputs and format.
  void (*product)(const std::vector<ProductArgs>&);
  ProductRounding int8, int4;

  /// Of weights in the format.
  ProductRounding rounding(PackedFormat format) const {
    return format == PackedFormat::kInt8   ? int8
           : format == PackedFormat::kInt4 ? int4
                                           : ProductRounding{};
  }
};
/// Those that run here, the fastest first; none where libtorch's own are faster, or it is not known
/// which are. Reentrant.
const std::vector<ProductFamily>& product_families();

/// The fastest of weights in 8 or 4 bits with x in 8 bits, or more where that costs nothing. Null
/// where the processor's vectors have none faster than those of bfloat16. Reentrant.
const ProductFamily* byte_products();

/// Whether byte_products() are faster than product_families(). Reentrant.
bool gains_by_bytes();

/// Whether the fastest one uses matrix units, of which the operating system has to be asked for
/// first. Reentrant.
bool has_matrix_units();

}  // namespace vlm
