// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/packed_matrix.h"

namespace vlm {

// How packed weights lie on the GPU, so that four neighbouring threads read 64 bytes of a row as 16
// bytes each and have what the matrix instruction wants of them:
//   kInt8  64 inputs, thread t the 16 from 16t on; scales float [outputs]
//   kInt4  128 inputs, four groups of 32; word w of thread t holds eight inputs of group w, from 8t
//          on: input 2i in its bits 4i, input 2i + 1 in its bits 16 + 4i; scales bfloat16 [outputs,
//          groups]
// Rows are padded to a multiple of 64 bytes.

VLM_HOST_DEVICE inline int64_t gpu_padded_inputs(PackedFormat format, int64_t inputs) {
  const int64_t unit = format == PackedFormat::kInt4 ? 128 : 64;
  return (inputs + unit - 1) / unit * unit;
}

/// Bytes of one output's weights.
VLM_HOST_DEVICE inline int64_t gpu_row_bytes(PackedFormat format, int64_t inputs) {
  const int64_t padded = gpu_padded_inputs(format, inputs);
  return format == PackedFormat::kInt4 ? padded / 2 : padded;
}

/// Bytes of one output's scales.
VLM_HOST_DEVICE inline int64_t gpu_scale_bytes(PackedFormat format, int64_t inputs) {
  return format == PackedFormat::kInt4 ? gpu_padded_inputs(format, inputs) / PackedShape::kGroup * 2
                                       : 4;
}

/// The input whose four bits are nibble `nibble` of 32-bit word `word` of a row.
VLM_HOST_DEVICE inline int64_t int4_input(int64_t word, int64_t nibble) {
  const int64_t block = word / 16, thread = word % 16 / 4, group = word % 4;
  return block * 128 + group * PackedShape::kGroup + thread * 8 + nibble % 4 * 2 + nibble / 4;
}

/// Where that is of an input.
VLM_HOST_DEVICE inline int64_t int4_word(int64_t input) {
  return input / 128 * 16 + input % 32 / 8 * 4 + input % 128 / 32;
}
VLM_HOST_DEVICE inline int64_t int4_nibble(int64_t input) {
  return input % 8 / 2 + input % 2 * 4;
}

/// The four bits of one input in a row as pack_rows() makes it; 8, which stands for 0, behind its
/// end.
VLM_HOST_DEVICE inline uint32_t packed_int4(const PackedShape& shape, const uint8_t* row,
                                            int64_t input) {
  if (input >= shape.padded_inputs()) return 8;
  return row[shape.value_at(input)] >> (input % 2 * 4) & 15u;
}

/// A word of the GPU's row from a row as pack_rows() makes it.
VLM_HOST_DEVICE inline uint32_t repacked_int4(const PackedShape& shape, const uint8_t* row,
                                              int64_t word) {
  uint32_t bits = 0;
  for (int64_t nibble = 0; nibble < 8; ++nibble) {
    bits |= packed_int4(shape, row, int4_input(word, nibble)) << (4 * nibble);
  }
  return bits;
}

/// The bfloat16 scale of one group of the GPU's row; 0 behind the end of the packed one.
VLM_HOST_DEVICE inline uint16_t repacked_int4_scale(const PackedShape& shape, const uint8_t* row,
                                                    int64_t group) {
  const int64_t input = group * PackedShape::kGroup;
  if (input >= shape.padded_inputs()) return 0;
  return reinterpret_cast<const uint16_t*>(row + shape.scale_at(input))[0];
}

}  // namespace vlm
