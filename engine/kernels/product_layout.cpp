// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"
#include "kernels/product_tiles.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>

#include "kernels/avx512.h"
#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"

namespace vlm::tiles {
namespace {

VLM_AVX512 inline __m512i load_halves(const uint16_t* from, int64_t count) {
  return count >= kDepth ? _mm512_loadu_si512(from)
                         : _mm512_maskz_loadu_epi16(first_lanes(count), from);
}

// One row's inputs from `begin` on, 32 to a tile. Inline: GCC 12 takes a call of the last one for
// one without effect.

VLM_AVX512_BFLOAT16 VLM_INLINE inline void lay_out_bfloat16(const ProductArgs& args,
                                                            const std::byte* row, int64_t begin,
                                                            int64_t steps, std::byte* out) {
  const auto* values = reinterpret_cast<const uint16_t*>(row);
  for (int64_t step = 0; step < steps; ++step, out += kRowBytes) {
    const int64_t at = begin + step * kDepth;
    _mm512_storeu_si512(out, load_halves(values + at, args.shape.inputs - at));
  }
}

VLM_AVX512 inline __m512 widen8(const std::byte* from) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

VLM_AVX512_BFLOAT16 VLM_INLINE inline void lay_out_int8(const std::byte* row, int64_t begin,
                                                        int64_t steps, std::byte* out) {
  for (int64_t step = 0; step < steps; ++step, out += kRowBytes) {
    const std::byte* from = row + begin + step * kDepth;
    const __m512bh both = _mm512_cvtne2ps_pbh(widen8(from + kSide), widen8(from));
    std::memcpy(out, &both, sizeof both);
  }
}

// A step is a group: its 16 levels become bfloat16, and the weights are looked up among them.
VLM_AVX512_BFLOAT16 VLM_INLINE inline void lay_out_int4(PackedShape shape, const std::byte* row,
                                                        int64_t begin, int64_t steps,
                                                        std::byte* out) {
  static_assert(kDepth == PackedShape::kGroup);
  const __m512 levels = _mm512_set_ps(7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8);
  const __m512i low_bits = _mm512_set1_epi32(0x000F000F);
  for (int64_t step = 0; step < steps; ++step, out += kRowBytes) {
    const int64_t at = begin + step * kDepth;
    const __m512 scale = _mm512_set1_ps(group_scale(shape, row, at));
    const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_mul_ps(levels, scale));
    const __m512i table = _mm512_castsi256_si512(reinterpret_cast<__m256i>(narrow));
    const __m512i bytes = _mm512_cvtepu8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + shape.value_at(at))));
    const __m512i places =
        _mm512_and_si512(_mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12)), low_bits);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(places, table));
  }
}

// Steps of a packed row; what a block has beyond them is zeros.
int64_t steps_within(const PackedShape& shape, int64_t begin, int64_t steps) {
  return std::min(steps, (shape.padded_inputs() - begin) / kDepth);
}

VLM_AVX512 void lay_out_x(const ProductArgs& args, int64_t first, int64_t count, int64_t begin,
                          int64_t steps, std::byte* out) {
  const int64_t inputs = args.shape.inputs;
  for (int64_t tile = 0; tile < 2; ++tile) {
    const int64_t rows = std::clamp<int64_t>(count - tile * kSide, 0, kSide);
    if (rows == 0) continue;
    const uint16_t* x = args.x + (first + tile * kSide) * inputs;
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t at = begin + step * kDepth;
      __m512i values[kSide];
      VLM_UNROLL
      for (int64_t i = 0; i < kSide; ++i) {
        values[i] =
            i < rows ? load_halves(x + i * inputs + at, inputs - at) : _mm512_setzero_si512();
      }
      transpose(values);
      std::byte* to = out + step * kStepBytes + tile * kTileBytes;
      VLM_UNROLL
      for (int64_t i = 0; i < kSide; ++i) _mm512_storeu_si512(to + i * 64, values[i]);
    }
  }
}

VLM_AVX512_BFLOAT16 void lay_out_weights(const ProductArgs& args, int64_t first, int64_t begin,
                                         int64_t steps, std::byte* out, int64_t stride) {
  const PackedShape& shape = args.shape;
  for (int64_t i = 0; i < kSpan; ++i) {
    std::byte* to = out + i * stride;
    if (first + i >= shape.outputs) {
      std::memset(to, 0, static_cast<size_t>(steps * kRowBytes));
      continue;
    }
    const std::byte* row = args.weights + (first + i) * shape.row_bytes();
    switch (shape.format) {
      case PackedFormat::kBFloat16:
        lay_out_bfloat16(args, row, begin, steps, to);
        break;
      case PackedFormat::kInt8:
        lay_out_int8(row, begin, steps_within(shape, begin, steps), to);
        break;
      case PackedFormat::kInt4:
        lay_out_int4(shape, row, begin, steps_within(shape, begin, steps), to);
        break;
    }
  }
}

}  // namespace

float weight_scale(const PackedShape& shape, const std::byte* row) {
  return shape.format == PackedFormat::kInt8 ? int8_scale(shape, row) : 1;
}

const Layout kHalves = {.depth = kDepth,
                        .row_bytes = kRowBytes,
                        .step_bytes = kStepBytes,
                        .in_place = true,
                        .block_inputs = 2048,
                        .lay_out_x = lay_out_x,
                        .lay_out_weights = lay_out_weights,
                        .scale = weight_scale};

Factors::Factors(const Layout& layout, const ProductArgs& args, int64_t output) {
  scales.fill(1);
  biases.fill(0);
  const int64_t outputs = std::min(kSpan, args.shape.outputs - output);
  for (int64_t i = 0; i < outputs; ++i) {
    const auto k = static_cast<size_t>(i);
    scales[k] = layout.scale(args.shape, args.weights + (output + i) * args.shape.row_bytes());
    if (args.bias != nullptr) biases[k] = widen(args.bias[output + i]);
  }
}

VLM_AVX512_BFLOAT16 void finish_avx512(const ProductArgs& args, const Factors& factors,
                                       int64_t output, int64_t row, int64_t rows,
                                       const float* sums) {
  const PackedShape& shape = args.shape;
  const int64_t outputs = std::min(kSpan, shape.outputs - output);
  const uint32_t mask = first_lanes(outputs);
  for (int64_t tile = 0; tile * kSide < rows; ++tile) {
    __m512i low[kSide], high[kSide];
    VLM_UNROLL
    for (int64_t i = 0; i < kSide; ++i) {
      low[i] = _mm512_loadu_si512(sums + sums_at(i, tile));
      high[i] = _mm512_loadu_si512(sums + sums_at(kSide + i, tile));
    }
    transpose(low);
    transpose(high);
    const int64_t count = std::min(kSide, rows - tile * kSide);
    uint16_t* y = args.y + (row + tile * kSide) * shape.outputs + output;
    for (int64_t i = 0; i < count; ++i, y += shape.outputs) {
      const __m512 first =
          _mm512_fmadd_ps(_mm512_castsi512_ps(low[i]), _mm512_load_ps(&factors.scales[0]),
                          _mm512_load_ps(&factors.biases[0]));
      const __m512 second =
          _mm512_fmadd_ps(_mm512_castsi512_ps(high[i]), _mm512_load_ps(&factors.scales[kSide]),
                          _mm512_load_ps(&factors.biases[kSide]));
      const __m512bh both = _mm512_cvtne2ps_pbh(second, first);
      _mm512_mask_storeu_epi16(y, mask, reinterpret_cast<__m512i>(both));
    }
  }
}

}  // namespace vlm::tiles

#endif
