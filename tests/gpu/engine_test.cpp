// SPDX-License-Identifier: LGPL-2.1-or-later
// The whole engine on a GPU against itself on the CPU, with the demo model: every way to decode,
// one stream and many, in every type and format. Exits with 77, which means skipped, where there is
// no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "vlm/engine.h"

namespace vlm {
namespace {

ModelSpec demo_model(const std::string& device, DType dtype,
                     Quantization quantization = Quantization::kNone) {
  const char* given = std::getenv("VLM_TEST_MODEL");
  const char* source = std::getenv("VLM_SOURCE_DIR");
  ModelSpec spec;
  spec.model = given != nullptr
                   ? given
                   : std::string(source != nullptr ? source : ".") + "/examples/demo-model/model";
  spec.device = device;
  spec.dtype = dtype;
  spec.quantization = quantization;
  return spec;
}

std::shared_ptr<Engine> open(const ModelSpec& spec) {
  auto engine = open_engine(spec);
  EXPECT_TRUE(engine) << (engine ? "" : engine.error().message);
  return engine ? *engine : nullptr;
}

// A plain ground with a rectangle in another colour.
Frame picture(uint32_t seed) {
  std::mt19937 random(seed);
  Frame frame{160, 120, {}};
  const auto colour = [&] {
    return std::array<uint8_t, 3>{uint8_t(random()), uint8_t(random()), uint8_t(random())};
  };
  const auto ground = colour(), figure = colour();
  const uint32_t left = random() % 80, top = random() % 60;
  for (uint32_t y = 0; y < 120; ++y) {
    for (uint32_t x = 0; x < 160; ++x) {
      const bool inside = x >= left && x < left + 60 && y >= top && y < top + 40;
      for (const uint8_t value : inside ? figure : ground) frame.rgb.push_back(value);
    }
  }
  return frame;
}

// All at once, one stream for each.
std::vector<Description> describe(Engine& engine, const std::vector<Options>& options) {
  std::vector<std::future<Result<Description>>> answers;
  for (size_t i = 0; i < options.size(); ++i) {
    Request request;
    request.frames.push_back(picture(static_cast<uint32_t>(i)));
    request.prompt.turns = {{Turn::Role::kUser, "Describe the scene."}};
    request.options = options[i];
    request.stream = static_cast<uint64_t>(i);
    request.sequence = static_cast<uint64_t>(i);
    auto answer = std::make_shared<std::promise<Result<Description>>>();
    answers.push_back(answer->get_future());
    Callbacks callbacks;
    callbacks.done = [answer](auto result) { answer->set_value(std::move(result)); };
    EXPECT_TRUE(engine.submit(std::move(request), callbacks));
  }
  std::vector<Description> descriptions;
  for (auto& answer : answers) {
    Result<Description> result = answer.get();
    EXPECT_TRUE(result) << (result ? "" : result.error().message);
    descriptions.push_back(result ? *result : Description{});
  }
  return descriptions;
}

std::vector<Description> describe(Engine& engine, const Options& options, int count) {
  return describe(engine, std::vector<Options>(static_cast<size_t>(count), options));
}

struct Way {
  std::string name;
  Options options;
};

std::vector<Way> ways() {
  std::vector<Way> all(9);
  for (Way& way : all) way.options.max_new_tokens = 24;
  all[0].name = "greedy";
  all[1].name = "minimum";
  all[1].options.min_new_tokens = 20;
  all[2].name = "sampled";
  all[2].options.temperature = 0.8;
  all[2].options.seed = 7;
  all[3].name = "nucleus";
  all[3].options.temperature = 1.2;
  all[3].options.top_p = 0.9;
  all[3].options.top_k = 20;
  all[3].options.seed = 8;
  all[4].name = "beams";
  all[4].options.num_beams = 3;
  all[5].name = "penalties";
  all[5].options.repetition_penalty = 1.3;
  all[5].options.no_repeat_ngram_size = 2;
  all[5].options.min_new_tokens = 12;
  all[6].name = "alternatives";
  all[6].options.top_logprobs = 3;
  all[7].name = "penalised";
  all[7].options.repetition_penalty = 1.3;
  all[7].options.min_new_tokens = 5;
  all[8].name = "sampled in every respect";
  all[8].options.temperature = 0.9;
  all[8].options.top_k = 40;
  all[8].options.top_p = 0.95;
  all[8].options.min_p = 0.01;
  all[8].options.repetition_penalty = 1.1;
  all[8].options.seed = 9;
  return all;
}

// Ids are the same but where two continuations are as good as equal: then texts part for good.
void expect_same(const std::vector<Description>& got, const std::vector<Description>& wanted,
                 double tolerance, double parted_at_most) {
  ASSERT_EQ(got.size(), wanted.size());
  size_t parted = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const auto& a = got[i];
    const auto& b = wanted[i];
    const size_t common = std::min(a.token_ids.size(), b.token_ids.size());
    size_t same = 0;
    while (same < common && a.token_ids[same] == b.token_ids[same]) {
      EXPECT_NEAR(a.logprobs[same], b.logprobs[same], tolerance) << i << " token " << same;
      ++same;
    }
    if (same < common || a.token_ids.size() != b.token_ids.size()) ++parted;
  }
  EXPECT_LE(static_cast<double>(parted), parted_at_most * static_cast<double>(got.size()));
}

TEST(GpuEngine, float32_describes_as_the_cpu_does_in_every_way_and_any_number_at_once) {
  const auto cpu = open(demo_model("cpu", DType::kFloat32));
  const auto gpu = open(demo_model("cuda", DType::kFloat32));
  ASSERT_TRUE(cpu && gpu);
  EXPECT_EQ(gpu->info().device, "cuda:0");
  for (const Way& way : ways()) {
    SCOPED_TRACE(way.name);
    for (const int count : {1, 3, 20}) {
      SCOPED_TRACE(count);
      expect_same(describe(*gpu, way.options, count), describe(*cpu, way.options, count), 1e-2,
                  0.05);
    }
  }
}

TEST(GpuEngine, sixteen_bits_stay_close_to_float32_on_the_cpu) {
  const auto cpu = open(demo_model("cpu", DType::kFloat32));
  ASSERT_TRUE(cpu);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const auto gpu = open(demo_model("cuda", dtype));
    ASSERT_TRUE(gpu);
    for (const int count : {1, 5, 13, 40}) {
      SCOPED_TRACE(count);
      Options options;
      options.max_new_tokens = 24;
      expect_same(describe(*gpu, options, count), describe(*cpu, options, count), 0.5, 0.3);
    }
  }
}

TEST(GpuEngine, sixteen_bits_decode_in_every_way) {
  const auto gpu = open(demo_model("cuda", DType::kBFloat16));
  ASSERT_TRUE(gpu);
  for (const Way& way : ways()) {
    SCOPED_TRACE(way.name);
    const auto one_by_one = [&] {
      std::vector<Description> all;
      for (int i = 0; i < 3; ++i) all.push_back(describe(*gpu, way.options, i + 1).back());
      return all;
    };
    // Alone or with others, and again: the same text.
    expect_same(describe(*gpu, way.options, 3), one_by_one(), 0.1, 0.34);
    for (const Description& description : describe(*gpu, way.options, 6)) {
      EXPECT_FALSE(description.token_ids.empty());
      if (way.options.min_new_tokens) {
        EXPECT_GE(static_cast<int>(description.token_ids.size()), *way.options.min_new_tokens);
      }
    }
  }
}

// Where the likeliest others are to be told, every token is the host's choice.
TEST(GpuEngine, chooses_by_itself_what_the_host_would_choose) {
  const auto gpu = open(demo_model("cuda", DType::kFloat32));
  ASSERT_TRUE(gpu);
  for (Way way : ways()) {
    SCOPED_TRACE(way.name);
    for (const int count : {1, 7, 33}) {
      SCOPED_TRACE(count);
      way.options.top_logprobs = 0;
      const auto by_itself = describe(*gpu, way.options, count);
      way.options.top_logprobs = 1;
      expect_same(by_itself, describe(*gpu, way.options, count), 1e-3, 0.05);
    }
  }
}

TEST(GpuEngine, requests_of_every_way_share_a_step) {
  const auto gpu = open(demo_model("cuda", DType::kFloat32));
  ASSERT_TRUE(gpu);
  for (const bool with_beams : {false, true}) {
    std::vector<Options> mixed;
    for (int i = 0; i < 24; ++i) {
      const std::vector<Way> all = ways();
      const Way& way = all[static_cast<size_t>(i) % all.size()];
      if (way.options.num_beams && !with_beams) continue;
      mixed.push_back(way.options);
      mixed.back().max_new_tokens = 12 + i % 7;
      mixed.back().min_new_tokens = i % 5;
    }
    std::vector<Description> one_by_one;
    for (size_t i = 0; i < mixed.size(); ++i) {
      std::vector<Options> others(i + 1, mixed[i]);
      one_by_one.push_back(describe(*gpu, others).back());
    }
    expect_same(describe(*gpu, mixed), one_by_one, 1e-2, 0.1);
  }
}

TEST(GpuEngine, packed_weights_describe_as_they_do_on_the_cpu) {
  for (const Quantization quantization : {Quantization::kInt8, Quantization::kInt4}) {
    const auto cpu = open(demo_model("cpu", DType::kFloat32, quantization));
    ASSERT_TRUE(cpu);
    for (const DType dtype : {DType::kFloat16, DType::kFloat32}) {
      const auto gpu = open(demo_model("cuda", dtype, quantization));
      ASSERT_TRUE(gpu);
      for (const int count : {1, 20, 50}) {
        SCOPED_TRACE(count);
        Options options;
        options.max_new_tokens = 24;
        expect_same(describe(*gpu, options, count), describe(*cpu, options, count), 0.3, 0.2);
      }
    }
  }
}

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto probe = vlm::open_engine(vlm::demo_model("cuda", vlm::DType::kFloat32));
  if (!probe && probe.error().kind == vlm::ErrorKind::kDevice) {
    std::puts("no GPU, or no GPU module beside the test: skipped");
    return 77;
  }
  return RUN_ALL_TESTS();
}
