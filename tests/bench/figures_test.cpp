// SPDX-License-Identifier: LGPL-2.1-or-later

// What the benchmarks compute from what they measured, and from a model's shape.

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "bench/full_batch.h"
#include "bench/peak_memory.h"
#include "bench/work.h"

namespace bench {
namespace {

TEST(FullBatch, others_that_outlast_the_last_one_count_with_it) {
  EXPECT_DOUBLE_EQ(full_batch_token_s({8, 0.7, false}, {}).value(), 0.1);
  EXPECT_DOUBLE_EQ(full_batch_token_s({8, 0.7, false}, {{40, 9, true}, {8, 0.7, true}}).value(),
                   0.1 / 3);
}

TEST(FullBatch, a_text_that_ended_before_gives_no_figure) {
  EXPECT_FALSE(full_batch_token_s({8, 0.7, false}, {{40, 9, true}, {40, 3, false}}));
}

TEST(FullBatch, a_text_that_began_later_gives_no_figure) {
  EXPECT_FALSE(full_batch_token_s({8, 0.7, false}, {{40, 9, true}, {7, 0.6, true}}));
}

TEST(FullBatch, one_token_takes_no_time) {
  EXPECT_FALSE(full_batch_token_s({1, 0, false}, {}));
}

vlm::ModelConfig tiny() {
  vlm::ModelConfig config;
  config.vision = {.hidden_size = 8,
                   .intermediate_size = 16,
                   .layers = 3,
                   .heads = 2,
                   .channels = 3,
                   .image_size = 4,
                   .patch_size = 2};
  config.text = {.vocab_size = 10,
                 .hidden_size = 64,
                 .intermediate_size = 96,
                 .layers = 2,
                 .heads = 4,
                 .kv_heads = 2,
                 .head_dim = 16};
  config.projector_layers = 2;
  return config;
}

// Two layers: q, k, v 64 + 32 + 32 rows, output 64, gate and up 96 each, all of 64 inputs; down 64
// rows of 96.
constexpr int64_t kLayers = 2 * ((64 + 32 + 32 + 64 + 96 + 96) * 64 + 64 * 96);

TEST(Work, a_token_reads_each_matrix_once) {
  const Work work = work_of(tiny(), 2, std::nullopt);
  EXPECT_EQ(work.token_parameters, kLayers + 10 * 64);
  EXPECT_EQ(work.token_bytes, 2 * work.token_parameters);
  EXPECT_EQ(work_of(tiny(), 4, std::nullopt).token_bytes, 4 * work.token_parameters);
  EXPECT_EQ(work.slot_bytes, 2 * 2 * 32 * 2);
}

TEST(Work, packed_matrices_are_read_as_they_are_packed) {
  using vlm::PackedFormat;
  const auto bytes = [](PackedFormat layers) {
    const auto matrix = [](PackedFormat format, int64_t outputs, int64_t inputs) {
      return vlm::PackedShape{format, outputs, inputs}.bytes();
    };
    return 2 * (matrix(layers, 384, 64) + matrix(layers, 64, 96)) +
           matrix(PackedFormat::kInt8, 10, 64);
  };
  for (const PackedFormat format : {PackedFormat::kInt8, PackedFormat::kInt4}) {
    EXPECT_EQ(work_of(tiny(), 2, format).token_bytes, bytes(format));
  }
}

// Four patches of 3 · 2 · 2 numbers and a class token; the block behind the last state that is
// taken does not run.
TEST(Work, a_picture_goes_through_tower_and_projector) {
  const int64_t block = 4 * 8 * 8 + 2 * 8 * 16, projector = 8 * 64 + 64 * 64;
  vlm::ModelConfig config = tiny();
  EXPECT_EQ(work_of(config, 2, std::nullopt).picture_operations,
            2 * (4 * 12 * 8 + 5 * 2 * block + 4 * projector));
  config.feature_layers = {-1};
  EXPECT_EQ(work_of(config, 2, std::nullopt).picture_operations,
            2 * (4 * 12 * 8 + 5 * 3 * block + 4 * projector));
}

TEST(Work, a_prompt_takes_its_tokens_and_one_row_of_logits) {
  const Work work = work_of(tiny(), 2, std::nullopt);
  EXPECT_EQ(work.first_token_operations(3, 7),
            3 * work.picture_operations + 7 * 2 * kLayers + 2 * 10 * 64);
}

TEST(PeakMemory, what_was_left_out_does_not_count) {
  if (!std::ofstream("/proc/self/clear_refs")) GTEST_SKIP() << "the system keeps the old peak";
  constexpr size_t kBytes = size_t{256} << 20;
  const auto take = [] { return std::string(kBytes, 'x').back(); };
  PeakMemory peak;
  const double before = peak.mib();
  ASSERT_GT(before, 0);
  EXPECT_EQ(peak.leave_out(take), 'x');
  EXPECT_LT(peak.mib(), before + 100);
  EXPECT_EQ(take(), 'x');
  EXPECT_GT(peak.mib(), before + 200);
}

}  // namespace
}  // namespace bench
