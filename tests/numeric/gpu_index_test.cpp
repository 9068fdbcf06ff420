// SPDX-License-Identifier: LGPL-2.1-or-later
// The GPU kernels' index arithmetic, which needs no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "cuda/attention_index.h"
#include "cuda/matvec_index.h"
#include "cuda/packed_index.h"

namespace vlm {
namespace {

GpuMatVecArgs product(int64_t outputs, MatVecOutput output, int64_t head_dim = 0) {
  GpuMatVecArgs args;
  args.matrix.outputs = outputs;
  args.output = output;
  args.target.head_dim = head_dim;
  return args;
}

// Calls `see` with every pair of every tile.
template <typename See>
void over_pairs(const GpuMatVecArgs& args, const See& see) {
  const TileMap map(args);
  for (int tile = 0; tile < map.tiles; ++tile) {
    for (int pair = 0; pair < kTilePairs; ++pair) see(map.pair(tile, pair));
  }
}

void expect_each_once(const GpuMatVecArgs& args) {
  std::map<int64_t, int> seen;
  over_pairs(args, [&](const OutputPair& at) {
    if (at.low >= 0) ++seen[at.low];
    if (at.high >= 0) ++seen[at.high];
  });
  EXPECT_EQ(static_cast<int64_t>(seen.size()), args.matrix.outputs);
  for (const auto& [output, times] : seen) {
    EXPECT_LT(output, args.matrix.outputs);
    EXPECT_EQ(times, 1) << output;
  }
}

TEST(MatVecTiles, cover_every_output_once) {
  for (const int64_t outputs : {1, 7, 8, 15, 16, 17, 100, 4096}) {
    expect_each_once(product(outputs, MatVecOutput::kStore));
    expect_each_once(product(2 * outputs, MatVecOutput::kGate));
  }
  for (const int64_t dim : {2, 4, 20, 64, 80, 128}) {
    expect_each_once(product(6 * dim, MatVecOutput::kRotate, dim));
  }
}

TEST(MatVecTiles, pair_what_belongs_together) {
  over_pairs(product(2 * 37, MatVecOutput::kGate), [](const OutputPair& at) {
    if (at.low < 0) return;
    EXPECT_EQ(at.high, at.low + 37);
  });
  over_pairs(product(5 * 20, MatVecOutput::kRotate, 20), [](const OutputPair& at) {
    if (at.low < 0) return;
    EXPECT_EQ(at.high, at.low + 10);
    EXPECT_EQ(at.high / 20, at.low / 20);
  });
}

TEST(PackedOnGpu, every_input_has_a_place_of_its_own) {
  std::map<std::pair<int64_t, int64_t>, int64_t> places;
  for (int64_t input = 0; input < 512; ++input) {
    const int64_t word = int4_word(input), nibble = int4_nibble(input);
    EXPECT_EQ(int4_input(word, nibble), input);
    EXPECT_LT(word, 512 / 8);
    places[{word, nibble}] = input;
  }
  EXPECT_EQ(places.size(), 512u);
}

TEST(PackedOnGpu, threads_find_their_inputs_together) {
  // Word w of thread t: group w, inputs 8t to 8t + 7, two and two in each half.
  for (int64_t thread = 0; thread < 4; ++thread) {
    for (int64_t group = 0; group < 4; ++group) {
      for (int64_t i = 0; i < 8; ++i) {
        const int64_t input = 128 + group * 32 + thread * 8 + i;
        EXPECT_EQ(int4_word(input), 16 + thread * 4 + group);
        EXPECT_EQ(int4_nibble(input), i / 2 + (i % 2) * 4);
      }
    }
  }
}

TEST(PackedOnGpu, keeps_the_bits_of_packed_rows) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int64_t inputs : {1, 31, 128, 300, 1100, 4096}) {
    const PackedShape shape = {PackedFormat::kInt4, 1, inputs};
    std::vector<float> weights(static_cast<size_t>(inputs)), unpacked(weights.size());
    for (float& weight : weights) weight = normal(random);
    std::vector<std::byte> row(static_cast<size_t>(shape.bytes()));
    pack_rows(shape, weights.data(), 1, row.data());
    unpack_rows(shape, row.data(), 1, unpacked.data());
    const auto* bytes = reinterpret_cast<const uint8_t*>(row.data());
    EXPECT_GE(gpu_padded_inputs(shape.format, inputs), inputs);
    for (int64_t input = 0; input < inputs; ++input) {
      const uint32_t word = repacked_int4(shape, bytes, int4_word(input));
      const auto value = static_cast<float>(word >> (4 * int4_nibble(input)) & 15u) - 8;
      const uint32_t bits = uint32_t{repacked_int4_scale(shape, bytes, input / 32)} << 16;
      float wide;
      std::memcpy(&wide, &bits, sizeof wide);
      EXPECT_EQ(value * wide, unpacked[static_cast<size_t>(input)]) << input;
    }
    for (int64_t input = shape.padded_inputs(); input < inputs + 4096; input += 32) {
      EXPECT_EQ(repacked_int4_scale(shape, bytes, input / 32), 0);
    }
  }
}

TEST(PastParts, cover_the_past_in_order) {
  for (const int64_t span : {1, 2, 63, 64, 65, 1000}) {
    for (const int64_t splits : {1, 2, 7, 64}) {
      int64_t next = 0;
      for (int64_t part = 0; part < splits; ++part) {
        const int64_t begin = part * part_size(span, splits);
        const int64_t end = std::min(begin + part_size(span, splits), span);
        if (begin >= span) continue;
        EXPECT_EQ(begin, next);
        next = end;
      }
      EXPECT_EQ(next, span);
    }
  }
}

}  // namespace
}  // namespace vlm
