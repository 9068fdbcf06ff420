// SPDX-License-Identifier: LGPL-2.1-or-later
// Packed weights from the CPU's order to the GPU's, one thread for each 32-bit word, and to plain
// ones, one thread for each weight.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/packed_index.h"

namespace vlm {
namespace {

constexpr int kThreads = 256;

__device__ uint32_t int8_word(const PackedShape& shape, const uint8_t* row, int64_t word) {
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) {
    const int64_t input = word * 4 + i;
    if (input < shape.inputs) bits |= uint32_t{row[input]} << (8 * i);
  }
  return bits;
}

__global__ void __launch_bounds__(kThreads) repack_kernel(RepackArgs args) {
  let_next_start();
  wait_for_inputs();
  const PackedShape& shape = args.shape;
  const bool int4 = shape.format == PackedFormat::kInt4;
  const int64_t words = gpu_row_bytes(shape.format, shape.inputs) / 4;
  const int64_t halves = gpu_scale_bytes(shape.format, shape.inputs) / 2;
  const int64_t output = blockIdx.x;
  const auto* row = static_cast<const uint8_t*>(args.rows) + output * shape.row_bytes();
  auto* weights = static_cast<uint32_t*>(args.weights) + output * words;
  for (int64_t word = threadIdx.x; word < words; word += kThreads) {
    weights[word] = int4 ? repacked_int4(shape, row, word) : int8_word(shape, row, word);
  }
  auto* kept = static_cast<uint16_t*>(args.scales) + output * halves;
  for (int64_t i = threadIdx.x; i < halves; i += kThreads) {
    kept[i] = int4 ? repacked_int4_scale(shape, row, i)
                   : reinterpret_cast<const uint16_t*>(row + shape.padded_inputs())[i];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) unpack_kernel(UnpackArgs args) {
  let_next_start();
  wait_for_inputs();
  const GpuMatrix& matrix = args.matrix;
  const int64_t output = blockIdx.x;
  const auto* row = static_cast<const uint8_t*>(matrix.weights) +
                    output * gpu_row_bytes(matrix.format, matrix.inputs);
  const auto* scales = static_cast<const uint8_t*>(matrix.scales) +
                       output * gpu_scale_bytes(matrix.format, matrix.inputs);
  T* out = static_cast<T*>(args.out) + output * matrix.inputs;
  for (int64_t i = threadIdx.x; i < matrix.inputs; i += kThreads) {
    float value, scale;
    if (matrix.format == PackedFormat::kInt4) {
      const uint32_t word = reinterpret_cast<const uint32_t*>(row)[int4_word(i)];
      value = static_cast<float>(word >> (4 * int4_nibble(i)) & 15u) - 8;
      scale = widen(reinterpret_cast<const __nv_bfloat16*>(scales)[i / PackedShape::kGroup]);
    } else {
      value = static_cast<float>(static_cast<int8_t>(row[i]));
      scale = *reinterpret_cast<const float*>(scales);
    }
    store(value * scale, out + i);
  }
}

}  // namespace

bool repack_cuda(const RepackArgs& args, void* stream) {
  if (args.shape.outputs < 1 || args.shape.format == PackedFormat::kBFloat16) return false;
  return launch(repack_kernel, dim3(static_cast<unsigned>(args.shape.outputs)), kThreads, 0, stream,
                args);
}

bool unpack_cuda(const UnpackArgs& args, void* stream) {
  if (args.matrix.outputs < 1 || !args.matrix.packed) return false;
  return with_type(args.type, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    return launch(unpack_kernel<T>, dim3(static_cast<unsigned>(args.matrix.outputs)), kThreads, 0,
                  stream, args);
  });
}

}  // namespace vlm
