// SPDX-License-Identifier: LGPL-2.1-or-later
// A step as one piece of work against Decoder::forward(): the same bits in logits and cache.
#include "decoder/cpu_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/compute_threads.h"
#include "fusion/fusion.h"
#include "kernels/product.h"
#include "numeric/stored_tensors.h"

namespace vlm {
namespace {

TextConfig small_config() {
  TextConfig config;
  config.vocab_size = 301;
  config.hidden_size = 96;
  config.intermediate_size = 168;
  config.layers = 3;
  config.heads = 6;
  config.kv_heads = 2;
  config.head_dim = 20;
  config.max_positions = 900;
  return config;
}

// Random weights for it, large enough that every one of them tells in the logits.
test::StoredTensors random_weights(const TextConfig& config) {
  std::map<std::string, at::Tensor> all;
  const auto add = [&](const std::string& name, at::IntArrayRef shape, double spread) {
    all["language_model." + name] = (at::randn(shape) * spread).to(at::kBFloat16);
  };
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const auto matrix = [&](const std::string& name, int64_t outputs, int64_t inputs, bool bias) {
    add(name + ".weight", {outputs, inputs}, 0.1);
    if (bias) add(name + ".bias", {outputs}, 0.1);
  };
  matrix("model.embed_tokens", config.vocab_size, hidden, false);
  if (!config.tie_word_embeddings) matrix("lm_head", config.vocab_size, hidden, false);
  add("model.norm.weight", {hidden}, 1);
  const bool bias = config.attention_bias;
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {hidden}, 1);
    add(layer + "post_attention_layernorm.weight", {hidden}, 1);
    matrix(layer + "self_attn.q_proj", config.heads * config.head_dim, hidden, bias);
    matrix(layer + "self_attn.k_proj", config.kv_heads * config.head_dim, hidden, bias);
    matrix(layer + "self_attn.v_proj", config.kv_heads * config.head_dim, hidden, bias);
    matrix(layer + "self_attn.o_proj", hidden, config.heads * config.head_dim, bias);
    matrix(layer + "mlp.gate_proj", inner, hidden, config.mlp_bias);
    matrix(layer + "mlp.up_proj", inner, hidden, config.mlp_bias);
    matrix(layer + "mlp.down_proj", hidden, inner, config.mlp_bias);
  }
  return test::StoredTensors(all);
}

// Some sequences with pasts of their own in one cache.
class Sequences {
 public:
  Sequences(const TextConfig& config, int64_t rows)
      : buffers(rows, kLongest, at::kCPU),
        cache(config, rows * kLongest, at::TensorOptions().dtype(at::kBFloat16)),
        slots_(static_cast<size_t>(rows)) {
    for (int64_t i = 0; i < config.layers; ++i) {
      cache.keys(i).copy_(at::randn(cache.keys(i).sizes()));
      cache.values(i).copy_(at::randn(cache.values(i).sizes()));
    }
    for (int64_t row = 0; row < rows; ++row) {
      // Neither of one length nor in order.
      for (int64_t i = 0; i < 1 + row * 37 % 300; ++i) grow(row);
    }
  }

  // One token more of each of the first `rows`.
  void next(int64_t rows) {
    std::vector<DecodePart> parts;
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      grow(static_cast<int64_t>(row));
      parts.push_back({static_cast<int64_t>(row * 31 + slots_[row].size()) % 301, &slots_[row]});
    }
    buffers.fill(parts);
  }

  DecoderBatch batch() const {
    DecoderBatch all;
    all.positions = buffers.positions();
    all.lengths = buffers.lengths();
    all.slots = buffers.slots();
    all.cached = buffers.cached();
    all.logit_rows = at::arange(buffers.rows(), at::kLong);
    return all;
  }

  static constexpr int64_t kLongest = 310;
  StepBuffers buffers;
  KvCache cache;

 private:
  void grow(int64_t row) {
    std::vector<int32_t>& own = slots_[static_cast<size_t>(row)];
    const auto all = static_cast<int64_t>(slots_.size());
    own.push_back(
        static_cast<int32_t>((static_cast<int64_t>(own.size()) * 7 % kLongest) * all + row));
  }

  std::vector<std::vector<int32_t>> slots_;
};

constexpr int64_t kTaken = 8;  // rows, on every processor

// One step object for all of these, one after the other, so that what one of them leaves behind
// meets the next.
void expect_same_steps(const TextConfig& config, std::optional<Packing> packing,
                       const std::vector<int64_t>& row_counts) {
  const test::StoredTensors stored = random_weights(config);
  TensorSource source = stored.source(at::kBFloat16);
  const Decoder decoder(config, source, at::kCPU, packing);
  Sequences sequences(config, *std::max_element(row_counts.begin(), row_counts.end()));
  const auto step = CpuStep::make(decoder, sequences.cache, sequences.buffers);
  ASSERT_NE(step, nullptr);
  // Where there are matrix units, bfloat16 is always theirs.
  ASSERT_EQ(step->takes(1), packing || !has_matrix_units());
  for (size_t i = 0; i < 2 * row_counts.size(); ++i) {
    const int64_t rows = row_counts[i / 2];
    SCOPED_TRACE(std::to_string(rows) + " rows");
    if (rows <= kTaken && (packing || !has_matrix_units())) {
      ASSERT_TRUE(step->takes(rows));
    }
    if (!step->takes(rows)) continue;
    sequences.next(rows);
    const at::Tensor got = step->run().clone();
    const at::Tensor keys = sequences.cache.keys(config.layers - 1).clone();
    const at::Tensor values = sequences.cache.values(config.layers - 1).clone();
    const at::Tensor embeds = fuse(decoder.embedding_table(), sequences.buffers.ids(), {});
    const at::Tensor wanted = decoder.forward(embeds, sequences.batch(), sequences.cache);
    ASSERT_GT(wanted.std().item<float>(), 0.1f);
    ASSERT_TRUE(got.equal(wanted)) << (got - wanted).abs().max().item<float>();
    ASSERT_TRUE(keys.equal(sequences.cache.keys(config.layers - 1)));
    ASSERT_TRUE(values.equal(sequences.cache.values(config.layers - 1)));
  }
}

const std::vector<int64_t> kRows = {1, 21, 3, 64, 1, 8, 2};

class CpuStepOf : public ::testing::TestWithParam<int> {};

TEST_P(CpuStepOf, any_number_of_threads_has_the_bits_of_the_decoder) {
  const TeamSize threads(GetParam());
  expect_same_steps(small_config(), {}, kRows);
  expect_same_steps(small_config(), Packing{PackedFormat::kInt8}, kRows);
  expect_same_steps(small_config(), Packing{PackedFormat::kInt4}, kRows);
  if (byte_products() == nullptr) return;
  expect_same_steps(small_config(), Packing{PackedFormat::kInt8, true}, kRows);
  expect_same_steps(small_config(), Packing{PackedFormat::kInt4, true}, kRows);
}

INSTANTIATE_TEST_SUITE_P(Threads, CpuStepOf, ::testing::Values(1, 2, 5));

TEST(CpuStep, threads_may_come_and_go_between_steps) {
  const TextConfig config = small_config();
  const test::StoredTensors stored = random_weights(config);
  TensorSource source = stored.source(at::kBFloat16);
  const Decoder decoder(config, source, at::kCPU, Packing{PackedFormat::kInt8});
  Sequences sequences(config, 4);
  const auto step = CpuStep::make(decoder, sequences.cache, sequences.buffers);
  ASSERT_NE(step, nullptr);
  for (const int threads : {1, 4, 2, 7, 1}) {
    const TeamSize size(threads);
    sequences.next(4);
    const at::Tensor got = step->run().clone();
    const at::Tensor embeds = fuse(decoder.embedding_table(), sequences.buffers.ids(), {});
    ASSERT_TRUE(got.equal(decoder.forward(embeds, sequences.batch(), sequences.cache)));
  }
}

// The step finds the angles of many positions at a time.
TEST(CpuStep, angles_do_not_depend_on_those_found_with_them) {
  TextConfig config = small_config();
  for (const int64_t head_dim : {20, 64, 80, 128}) {
    config.head_dim = head_dim;
    const Rope rope(config, at::kCPU);
    const at::Tensor positions = at::arange(0, 512, at::kLong);
    const Rope::Angles all = rope.angles(positions, positions.add(1));
    for (int64_t i = 0; i < 512; ++i) {
      const at::Tensor own = positions.narrow(0, i, 1);
      const Rope::Angles one = rope.angles(own, own.add(1));
      ASSERT_TRUE(one.cos.to(at::kBFloat16).equal(all.cos.narrow(0, i, 1).to(at::kBFloat16))) << i;
      ASSERT_TRUE(one.sin.to(at::kBFloat16).equal(all.sin.narrow(0, i, 1).to(at::kBFloat16))) << i;
    }
  }
}

TEST(CpuStep, follows_what_models_differ_in) {
  TextConfig config = small_config();
  config.attention_bias = config.mlp_bias = true;
  config.sliding_window = 50;
  expect_same_steps(config, {}, {1, 5, 2});
  expect_same_steps(config, Packing{PackedFormat::kInt4}, {1, 5, 2});
  config = small_config();
  config.tie_word_embeddings = true;
  config.activation = Activation::kQuickGelu;
  config.kv_heads = config.heads;
  expect_same_steps(config, {}, {1, 5, 2});
  config.rope.type = RopeConfig::Type::kDynamic;
  config.rope.factor = 2;
  config.max_positions = 100;
  expect_same_steps(config, Packing{PackedFormat::kInt8}, {1, 5, 2});
}

TEST(CpuStep, pieces_of_many_outputs_and_inputs) {
  TextConfig config = small_config();
  config.vocab_size = 9001;
  config.hidden_size = 2080;
  config.intermediate_size = 2500;
  config.layers = 1;
  expect_same_steps(config, {}, {2, 1});
  expect_same_steps(config, Packing{PackedFormat::kInt4}, {2, 1});
}

TEST(CpuStep, leaves_other_types_and_activations_alone) {
  TextConfig config = small_config();
  const test::StoredTensors stored = random_weights(config);
  const auto step_of = [&](const TextConfig& what, at::ScalarType type) {
    TensorSource source = stored.source(type);
    const Decoder decoder(what, source, at::kCPU, {});
    StepBuffers buffers(1, 10, at::kCPU);
    KvCache cache(what, 10, at::TensorOptions().dtype(type));
    return CpuStep::make(decoder, cache, buffers) != nullptr;
  };
  EXPECT_TRUE(step_of(config, at::kBFloat16));
  EXPECT_FALSE(step_of(config, at::kFloat));
  config.activation = Activation::kGelu;
  EXPECT_FALSE(step_of(config, at::kBFloat16));
}

TEST(CpuStep, takes_no_more_rows_than_are_few) {
  const TextConfig config = small_config();
  const test::StoredTensors stored = random_weights(config);
  TensorSource source = stored.source(at::kBFloat16);
  const Decoder decoder(config, source, at::kCPU, Packing{PackedFormat::kInt8});
  StepBuffers buffers(200, 10, at::kCPU);
  KvCache cache(config, 10, at::TensorOptions().dtype(at::kBFloat16));
  const auto step = CpuStep::make(decoder, cache, buffers);
  EXPECT_FALSE(step->takes(0));
  EXPECT_TRUE(step->takes(1));
  EXPECT_TRUE(step->takes(8));
  EXPECT_FALSE(step->takes(200));
}

}  // namespace
}  // namespace vlm
