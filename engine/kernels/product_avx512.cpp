// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"
#include "kernels/product_tiles.h"

#if defined(__x86_64__)

#include "kernels/avx512.h"

namespace vlm::tiles {
namespace {

constexpr int kAtOnce = 16;  // sums in registers, of outputs times tiles of rows

VLM_AVX512_BFLOAT16 inline __m512bh pairs(const std::byte* from) {
  return reinterpret_cast<__m512bh>(load_line(from));
}

// One output's pair of inputs for all rows.
VLM_AVX512_BFLOAT16 inline __m512bh pair(const std::byte* from) {
  return reinterpret_cast<__m512bh>(repeat_word(from));
}

// kAtOnce / kRowTiles of the block's outputs from `output` on.
template <int kRowTiles>
VLM_AVX512_BFLOAT16 void multiply_part(const Block& block, int64_t output) {
  constexpr int kOutputs = kAtOnce / kRowTiles;
  const std::byte* weights = block.weights + output * block.weights_stride;
  const std::byte* x = block.x;
  float* sums = block.sums + sums_at(output, 0);
  __m512 all[kOutputs][kRowTiles];
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    VLM_UNROLL
    for (int tile = 0; tile < kRowTiles; ++tile) {
      all[i][tile] = block.more ? _mm512_loadu_ps(sums + tile * kSide * kSide + i * kSide)
                                : _mm512_setzero_ps();
    }
  }
  for (int64_t step = 0; step < block.steps; ++step, weights += kRowBytes, x += kStepBytes) {
    for (int64_t at = 0; at < kTileBytes / kSide; at += 4) {
      __m512bh both[kRowTiles];
      VLM_UNROLL
      for (int tile = 0; tile < kRowTiles; ++tile)
        both[tile] = pairs(x + tile * kTileBytes + at * 16);
      VLM_UNROLL
      for (int i = 0; i < kOutputs; ++i) {
        const __m512bh weight = pair(weights + i * block.weights_stride + at);
        VLM_UNROLL
        for (int tile = 0; tile < kRowTiles; ++tile) {
          all[i][tile] = _mm512_dpbf16_ps(all[i][tile], weight, both[tile]);
        }
      }
    }
  }
  VLM_UNROLL
  for (int i = 0; i < kOutputs; ++i) {
    VLM_UNROLL
    for (int tile = 0; tile < kRowTiles; ++tile) {
      _mm512_storeu_ps(sums + tile * kSide * kSide + i * kSide, all[i][tile]);
    }
  }
}

template <int kRowTiles>
void multiply_parts(const Block& block) {
  for (int64_t output = 0; output < kSpan; output += kAtOnce / kRowTiles) {
    multiply_part<kRowTiles>(block, output);
  }
}

void multiply(const Block& block) {
  if (block.row_tiles > 1) {
    multiply_parts<2>(block);
  } else {
    multiply_parts<1>(block);
  }
}

}  // namespace

const Unit kAvx512 = {.layout = kHalves, .multiply = multiply, .finish = finish_avx512};

}  // namespace vlm::tiles

#endif
