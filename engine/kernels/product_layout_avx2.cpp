// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"

#if defined(__x86_64__)

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/ceil_div.h"
#include "kernels/avx2.h"
#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"
#include "kernels/product_avx2.h"

namespace vlm::tiles {
namespace {

// Words of 32 bits of 16 rows, `words` each and `stride` bytes apart: rows become columns.
VLM_AVX2 void turn_tile(const std::byte* from, int64_t stride, int64_t words, std::byte* out) {
  for (int64_t half = 0; half < kSide; half += 8) {
    for (int64_t word = 0; word < words; word += 8) {
      __m256i square[8];
      VLM_UNROLL
      for (int64_t i = 0; i < 8; ++i) {
        square[i] = _mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(from + (half + i) * stride + word * 4));
      }
      transpose(square);
      VLM_UNROLL
      for (int64_t i = 0; i < 8; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + ((word + i) * kSide + half) * 4),
                            square[i]);
      }
    }
  }
}

VLM_AVX2 void widen_row(const uint16_t* from, int64_t count, int64_t padded, float* to) {
  for (int64_t i = 0; i < padded; i += 8) {
    _mm256_storeu_ps(to + i, load_halves(from + std::min(i, count), count - i));
  }
}

VLM_AVX2 void lay_out_wide_x(const ProductArgs& args, int64_t first, int64_t count, int64_t begin,
                             int64_t steps, std::byte* out) {
  const int64_t inputs = args.shape.inputs;
  alignas(32) float rows[kSide][kWideDepth] = {};
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t at = std::min(inputs, begin + step * kWideDepth);
    for (int64_t tile = 0; tile * kSide < count; ++tile) {
      const int64_t some = std::min(kSide, count - tile * kSide);
      for (int64_t i = 0; i < some; ++i) {
        widen_row(args.x + (first + tile * kSide + i) * inputs + at, inputs - at, kWideDepth,
                  rows[i]);
      }
      for (int64_t i = some; i < kSide; ++i) std::memset(rows[i], 0, sizeof rows[i]);
      turn_tile(reinterpret_cast<const std::byte*>(rows), sizeof rows[0], kWideDepth,
                out + (tile * steps + step) * kWideTileBytes);
    }
  }
}

VLM_AVX2 void lay_out_wide_weights(const ProductArgs& args, int64_t first, int64_t begin,
                                   int64_t steps, std::byte* out, int64_t stride) {
  const int64_t inputs = args.shape.inputs, padded = steps * kWideDepth;
  for (int64_t i = 0; i < kSpan; ++i, out += stride) {
    if (first + i >= args.shape.outputs) {
      std::memset(out, 0, static_cast<size_t>(padded) * sizeof(float));
      continue;
    }
    const auto* row =
        reinterpret_cast<const uint16_t*>(args.weights + (first + i) * args.shape.row_bytes());
    widen_row(row + begin, inputs - begin, padded, reinterpret_cast<float*>(out));
  }
}

// A step of one row of x in 16 bits, and what they have to be multiplied by.
VLM_AVX2 float round_row(const uint16_t* from, int64_t count, std::byte* out) {
  __m256 values[kWordDepth / 8];
  for (int64_t i = 0; i < kWordDepth / 8; ++i) {
    values[i] = load_halves(from + std::min(i * 8, count), count - i * 8);
  }
  const RowScale own(largest_of(values), kMostOfX);
  const __m256 by = _mm256_set1_ps(own.inverse);
  for (int64_t i = 0; i < kWordDepth / 8; i += 2) {
    const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], by));
    const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(values[i + 1], by));
    // Packing keeps to halves of registers.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 16),
                        _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8));
  }
  return own.scale;
}

VLM_AVX2 void lay_out_word_x(const ProductArgs& args, int64_t first, int64_t count, int64_t begin,
                             int64_t steps, std::byte* out) {
  const int64_t inputs = args.shape.inputs;
  alignas(32) std::byte rows[kSide][kWordRowBytes];
  for (int64_t step = 0; step < steps; ++step, out += kWordStepBytes) {
    const int64_t at = std::min(inputs, begin + step * kWordDepth);
    for (int64_t tile = 0; tile * kSide < count; ++tile) {
      auto* scales = reinterpret_cast<float*>(out + 2 * kWordTileBytes) + tile * kSide;
      for (int64_t i = 0; i < kSide; ++i) {
        const int64_t row = tile * kSide + i;
        scales[i] =
            row < count ? round_row(args.x + (first + row) * inputs + at, inputs - at, rows[i]) : 0;
        if (row >= count) std::memset(rows[i], 0, sizeof rows[i]);
      }
      turn_tile(rows[0], sizeof rows[0], kWordPairs, out + tile * kWordTileBytes);
    }
  }
}

VLM_AVX2 VLM_INLINE inline void widen_int8(const std::byte* from, std::byte* out) {
  for (int64_t i = 0; i < PackedShape::kGroup; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 2), _mm256_cvtepi8_epi16(bytes));
  }
}

// A group of 32 weights, level · `factor` / 64 rounded, where levels are −8 … 7.
VLM_AVX2 VLM_INLINE inline void widen_int4(const std::byte* values, int factor, std::byte* out) {
  const __m256i both =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  const auto scaled = [&](__m256i levels) VLM_AVX2 {
    const __m256i wide = _mm256_slli_epi16(_mm256_sub_epi16(levels, _mm256_set1_epi16(8)), 9);
    return _mm256_mulhrs_epi16(wide, _mm256_set1_epi16(static_cast<int16_t>(factor)));
  };
  const __m256i even = scaled(_mm256_and_si256(both, _mm256_set1_epi16(15)));
  const __m256i odd = scaled(_mm256_srli_epi16(both, 4));
  const __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + 1,
                      _mm256_permute2x128_si256(low, high, 0x31));
}

// int4: the largest of a row's scales stands for 8 levels of kMostOfInt4.
VLM_AVX2 float word_scale(const PackedShape& shape, const std::byte* row) {
  if (shape.format == PackedFormat::kInt8) return weight_scale(shape, row);
  float most = 0;
  for (int64_t at = 0; at < shape.padded_inputs(); at += PackedShape::kGroup) {
    most = std::max(most, std::abs(group_scale(shape, row, at)));
  }
  return most * 8 / kMostOfInt4;
}

VLM_AVX2 void lay_out_word_weights(const ProductArgs& args, int64_t first, int64_t begin,
                                   int64_t steps, std::byte* out, int64_t stride) {
  const PackedShape& shape = args.shape;
  const int64_t end = std::min(shape.padded_inputs(), begin + steps * kWordDepth);
  for (int64_t i = 0; i < kSpan; ++i, out += stride) {
    std::byte* to = out;
    if (first + i < shape.outputs) {
      const std::byte* row = args.weights + (first + i) * shape.row_bytes();
      const float scale = word_scale(shape, row);
      const float inverse = scale == 0 ? 0 : 64 / scale;
      for (int64_t at = begin; at < end; at += PackedShape::kGroup, to += PackedShape::kGroup * 2) {
        if (shape.format == PackedFormat::kInt8) {
          widen_int8(row + at, to);
        } else {
          widen_int4(row + shape.value_at(at),
                     static_cast<int>(std::lrint(group_scale(shape, row, at) * inverse)), to);
        }
      }
    }
    std::memset(to, 0, static_cast<size_t>(out + steps * kWordRowBytes - to));
  }
}

VLM_AVX2 BytesOfAvx2 round_group(const uint16_t* from, int64_t count) {
  __m256 values[4];
  for (int64_t i = 0; i < 4; ++i) {
    values[i] = load_halves(from + std::min(i * 8, count), count - i * 8);
  }
  return round_to_bytes(values);
}

VLM_AVX2 void lay_out_byte_x(const ProductArgs& args, int64_t first, int64_t count, int64_t begin,
                             int64_t steps, std::byte* out) {
  const int64_t inputs = args.shape.inputs;
  alignas(32) int8_t rows[kSide][PackedShape::kGroup];
  auto* tiles = reinterpret_cast<ByteTile*>(out);
  for (int64_t step = 0; step < steps; ++step, tiles += 2) {
    for (int64_t row = 0; row < round_up(count, kSide); row += kSide) {
      ByteTile& tile = tiles[row / kSide];
      for (int64_t group = 0; group < kByteGroups; ++group) {
        const int64_t at =
            std::min(inputs, begin + step * kByteDepth + group * PackedShape::kGroup);
        for (int64_t i = 0; i < kSide; ++i) {
          const bool there = row + i < count;
          const BytesOfAvx2 bytes = round_group(
              args.x + (there ? (first + row + i) * inputs + at : 0), there ? inputs - at : 0);
          _mm256_store_si256(reinterpret_cast<__m256i*>(rows[i]), bytes.values);
          tile.scales[group][i] = bytes.scale;
          tile.shifts[group][i] = -8 * bytes.sum;
        }
        turn_tile(reinterpret_cast<const std::byte*>(rows), sizeof rows[0], kByteQuads,
                  reinterpret_cast<std::byte*>(tile.values[group]));
      }
    }
  }
}

// Rows are padded to more inputs than a step has.
VLM_AVX2 void lay_out_byte_weights(const ProductArgs& args, int64_t first, int64_t begin,
                                   int64_t steps, std::byte* out, int64_t stride) {
  const PackedShape& shape = args.shape;
  const __m128i low = _mm_set1_epi8(15);
  for (int64_t i = 0; i < kSpan; ++i, out += stride) {
    if (first + i >= shape.outputs) {
      std::memset(out, 0, static_cast<size_t>(steps * kByteRowBytes));
      continue;
    }
    const std::byte* row = args.weights + (first + i) * shape.row_bytes();
    for (int64_t group = 0; group < steps * kByteGroups; ++group) {
      const int64_t at = begin + group * PackedShape::kGroup;
      std::byte* step = out + group / kByteGroups * kByteRowBytes;
      auto* to = reinterpret_cast<__m128i*>(step + group % kByteGroups * PackedShape::kGroup);
      const __m128i both =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + shape.value_at(at)));
      _mm_storeu_si128(to, _mm_and_si128(both, low));
      _mm_storeu_si128(to + 1, _mm_and_si128(_mm_srli_epi16(both, 4), low));
      const float scale = group_scale(shape, row, at);
      std::memcpy(step + kByteDepth + group % kByteGroups * sizeof scale, &scale, sizeof scale);
    }
  }
}

}  // namespace

const Layout kWide = {.depth = kWideDepth,
                      .row_bytes = kWideDepth * 4,
                      .step_bytes = kWideStepBytes,
                      .in_place = false,
                      .block_inputs = 256,
                      .lay_out_x = lay_out_wide_x,
                      .lay_out_weights = lay_out_wide_weights,
                      .scale = weight_scale};
const Layout kWords = {.depth = kWordDepth,
                       .row_bytes = kWordRowBytes,
                       .step_bytes = kWordStepBytes,
                       .in_place = false,
                       .block_inputs = 1024,
                       .lay_out_x = lay_out_word_x,
                       .lay_out_weights = lay_out_word_weights,
                       .scale = word_scale};
const Layout kBytesByGroup = {.depth = kByteDepth,
                              .row_bytes = kByteRowBytes,
                              .step_bytes = 2 * sizeof(ByteTile),
                              .in_place = false,
                              .block_inputs = 1024,
                              .lay_out_x = lay_out_byte_x,
                              .lay_out_weights = lay_out_byte_weights,
                              .scale = weight_scale};

}  // namespace vlm::tiles

#endif
