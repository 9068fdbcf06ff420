// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/weights.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "checkpoint_writer.h"

namespace vlm {
namespace {

using test::Json;
using test::Shapes;
using test::TemporaryDirectory;

std::string complaint(const TemporaryDirectory& directory) {
  const auto weights = Weights::open(directory.path());
  return weights ? "" : weights.error().message;
}

std::string complaint_about(const std::string& file) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", file);
  return complaint(directory);
}

std::string complaint_about_header(const Json& header, size_t data_bytes) {
  return complaint_about(test::safetensors_bytes(header.dump(), data_bytes));
}

Json entry(const Json& begin, const Json& end, const Json& shape, const char* dtype = "F32") {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(weights, tensors_lie_where_the_header_says) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", test::safetensors({{"a", {2, 3}}, {"b", {}}, {"c", {0}}}));
  const auto weights = Weights::open(directory.path());
  ASSERT_TRUE(weights) << weights.error().message;
  const StoredTensor* a = (*weights)->find("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a->bytes, 24u);
  EXPECT_EQ(reinterpret_cast<const float*>(a->data)[5], 5.0f);
  EXPECT_EQ(reinterpret_cast<const float*>((*weights)->find("b")->data)[0], 6.0f);
  EXPECT_EQ((*weights)->find("c")->bytes, 0u);
  EXPECT_FALSE((*weights)->find("d"));
}

TEST(weights, a_tensor_outlives_the_table_with_its_owner) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", test::safetensors({{"a", {4}}}));
  StoredTensor kept;
  {
    const auto weights = Weights::open(directory.path());
    kept = *(*weights)->find("a");
  }
  EXPECT_EQ(reinterpret_cast<const float*>(kept.data)[3], 3.0f);
}

// Bytes of files that this process holds in memory.
int64_t resident_file_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;
  statm >> size >> resident >> shared;
  return shared * ::sysconf(_SC_PAGESIZE);
}

TEST(weights, pages_that_were_read_can_be_let_go_and_come_back) {
  const TemporaryDirectory directory;
  constexpr int64_t kCount = 4 << 20;
  directory.write("model.safetensors", test::safetensors({{"a", {kCount}}, {"b", {kCount}}}));
  const auto weights = Weights::open(directory.path());
  ASSERT_TRUE(weights) << weights.error().message;
  const StoredTensor& tensor = *(*weights)->find("a");
  const auto sum = [&] {
    int64_t total = 0;
    for (size_t i = 0; i < tensor.bytes; ++i) total += static_cast<int64_t>(tensor.data[i]);
    return total;
  };
  const int64_t before = resident_file_bytes();
  const int64_t total = sum();
  const int64_t read = resident_file_bytes();
  EXPECT_GT(read, before + kCount * 4 / 2);
  ASSERT_NE(tensor.mapping, nullptr);
  tensor.mapping->let_go(tensor.data, tensor.bytes);
  EXPECT_LT(resident_file_bytes(), read - kCount * 4 / 2);
  EXPECT_EQ(sum(), total);
}

TEST(weights, only_pages_of_the_file_can_be_let_go) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", test::safetensors({{"a", {4}}}));
  const auto weights = Weights::open(directory.path());
  ASSERT_TRUE(weights);
  std::vector<std::byte> own(1 << 20, std::byte{7});
  (*weights)->find("a")->mapping->let_go(own.data(), own.size());
  EXPECT_EQ(own, std::vector<std::byte>(1 << 20, std::byte{7}));
}

TEST(weights, an_odd_header_still_gives_aligned_tensors) {
  auto [header, bytes] = test::safetensors_header({{"a", {2}}});
  for (int padding = 0; padding < 4; ++padding) {
    const TemporaryDirectory directory;
    directory.write("model.safetensors",
                    test::safetensors_bytes(header.dump() + std::string(padding, ' '), bytes));
    const auto weights = Weights::open(directory.path());
    ASSERT_TRUE(weights) << weights.error().message;
    const auto* data = (*weights)->find("a")->data;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 4, 0u);
    EXPECT_EQ(reinterpret_cast<const float*>(data)[1], 1.0f);
  }
}

TEST(weights, all_spellings_mean_one_tensor) {
  for (const char* spelling : {"vision_tower.embeddings.class_embedding",
                               "vision_tower.vision_model.embeddings.class_embedding",
                               "model.vision_tower.embeddings.class_embedding",
                               "model.vision_tower.vision_model.embeddings.class_embedding"}) {
    EXPECT_EQ(canonical_name(spelling), "vision_tower.vision_model.embeddings.class_embedding");
  }
  for (const char* spelling :
       {"language_model.model.norm.weight", "model.language_model.norm.weight"}) {
    EXPECT_EQ(canonical_name(spelling), "language_model.model.norm.weight");
  }
  for (const char* spelling : {"language_model.lm_head.weight", "lm_head.weight"}) {
    EXPECT_EQ(canonical_name(spelling), "language_model.lm_head.weight");
  }
  EXPECT_EQ(canonical_name("model.multi_modal_projector.linear_1.bias"),
            "multi_modal_projector.linear_1.bias");
  for (const auto& [spelling, name] : std::vector<std::pair<const char*, const char*>>{
           {"model.embed_tokens.weight", "language_model.model.embed_tokens.weight"},
           {"model.layers.3.mlp.up_proj.weight",
            "language_model.model.layers.3.mlp.up_proj.weight"},
           {"model.norm.weight", "language_model.model.norm.weight"},
           {"model.image_newline", "image_newline"},
           {"model.mm_projector.weight", "multi_modal_projector.linear_1.weight"},
           {"model.mm_projector.0.bias", "multi_modal_projector.linear_1.bias"},
           {"model.mm_projector.4.weight", "multi_modal_projector.linear_3.weight"},
           {"model.mm_projector.1.weight", "model.mm_projector.1.weight"},
           {"model.mm_projector.0.proj.weight", "model.mm_projector.0.proj.weight"},
           {"model.vision_tower.vision_tower.vision_model.post_layernorm.bias",
            "vision_tower.vision_model.post_layernorm.bias"}}) {
    EXPECT_EQ(canonical_name(spelling), name);
  }
}

TEST(weights, two_spellings_in_one_checkpoint_are_refused) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", test::safetensors({{"lm_head.weight", {1}},
                                                          {"language_model.lm_head.weight", {1}}}));
  EXPECT_HAS(complaint(directory), "stored twice");
}

TEST(weights, computed_tables_are_ignored_whatever_their_type) {
  const TemporaryDirectory directory;
  const Json header = {
      {"vision_tower.vision_model.embeddings.position_ids", entry(0, 16, {1, 2}, "I64")},
      {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq", entry(16, 20, {1})},
      {"a", entry(20, 24, {1})}};
  directory.write("model.safetensors", test::safetensors_bytes(header.dump(), 24));
  const auto weights = Weights::open(directory.path());
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ((*weights)->tensors().size(), 1u);
}

TEST(weights, a_file_cut_short_says_what_is_missing) {
  const std::string whole = test::safetensors({{"a", {8}}});
  EXPECT_EQ(complaint_about(whole), "");
  const std::string cut = complaint_about(whole.substr(0, whole.size() - 5));
  EXPECT_HAS(cut, "ends after " + std::to_string(whole.size() - 5) + " bytes, but tensor a needs " +
                      std::to_string(whole.size()));
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_NE(complaint_about(whole.substr(0, length)), "") << length;
  }
  EXPECT_HAS(complaint_about(whole + "more"), "the file holds 36");
}

TEST(weights, an_absurd_header_length_is_refused) {
  for (const uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 40, uint64_t{1} << 63,
                                UINT64_MAX, UINT64_MAX - 7, uint64_t{13}}) {
    EXPECT_HAS(complaint_about(test::little_endian(length, 8) + "{}          "), "header");
  }
}

TEST(weights, a_header_that_is_no_table_is_refused) {
  for (const std::string header :
       {"[]", "null", "7", "{", "{\"a\": 7}", "{\"a\": {}}", "\xFF\xFE"}) {
    EXPECT_NE(complaint_about(test::safetensors_bytes(header, 8)), "") << header;
  }
  EXPECT_HAS(
      complaint_about(test::safetensors_bytes("{\"a\":" + std::string(100'000, '[') + "}", 0)),
      "nested deeper");
  EXPECT_HAS(complaint_about(test::safetensors_bytes(
                 R"({"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                 4)),
             "twice");
}

TEST(weights, wrong_offsets_are_refused) {
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {2})}, {"b", entry(4, 12, {2})}}, 12),
             "overlap");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 4, {1})}, {"b", entry(8, 12, {1})}}, 12),
             "gaps");
  EXPECT_HAS(complaint_about_header({{"a", entry(4, 8, {1})}}, 8), "gaps");
  EXPECT_HAS(complaint_about_header({{"a", entry(8, 4, {1})}}, 8), "ascending");
  EXPECT_HAS(complaint_about_header({{"a", entry(-4, 0, {1})}}, 8), "ascending");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, UINT64_MAX, {1})}}, 8), "ascending");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, INT64_MAX, {1})}}, 8), "cut short");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 0.5, {1})}}, 8), "ascending");
}

TEST(weights, shape_and_size_must_agree) {
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {3})}}, 8), "needs 12");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {int64_t{1} << 40, int64_t{1} << 40})}}, 8),
             "sizes that fit");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {-1, -2})}}, 8), "sizes that fit");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 0, Json::array({0, INT64_MAX, 9}))}}, 0),
             "");  // no elements, no bytes
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, std::vector<int>(17, 1))}}, 8), "shape");
}

TEST(weights, other_types_are_refused_by_name) {
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {1}, "F64")}}, 8), "stored as F64");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {8}, "I8")}}, 8), "stored as I8");
  EXPECT_HAS(complaint_about_header({{"a", entry(0, 8, {8}, "Q7")}}, 8), "unknown type");
}

TEST(weights, shards_come_together_through_the_index) {
  const TemporaryDirectory directory;
  directory.write("one.safetensors", test::safetensors({{"a", {1}}}));
  directory.write("two.safetensors", test::safetensors({{"b", {2}}}));
  const auto index = [&](const Json& map) {
    directory.write("model.safetensors.index.json", Json{{"weight_map", map}});
    return complaint(directory);
  };
  EXPECT_EQ(index({{"a", "one.safetensors"}, {"b", "two.safetensors"}}), "");
  EXPECT_HAS(index({{"a", "one.safetensors"}, {"b", "one.safetensors"}}), "tensor b is missing");
  const Json absent = {{"a", "one.safetensors"}, {"b", "three.safetensors"}};
  EXPECT_HAS(index(absent), directory.file("three.safetensors") + ": is missing, though " +
                                directory.file("model.safetensors.index.json"));
  EXPECT_HAS(index(absent), "; fetch");
  EXPECT_HAS(index({{"a", "three.safetensors"}, {"b", "two.safetensors"}, {"c", "x.safetensors"}}),
             "three.safetensors: is missing with 1 more of its files");
  EXPECT_HAS(index({{"a", "../one.safetensors"}}), "weight_map.a");
  EXPECT_HAS(index({{"a", "/etc/passwd"}}), "weight_map.a");
  EXPECT_HAS(index({{"a", 1}}), "weight_map.a");
  EXPECT_HAS(index(Json::array()), "weight_map");
  directory.write("two.safetensors", test::safetensors({{"a", {2}}, {"b", {2}}}));
  EXPECT_HAS(index({{"a", "one.safetensors"}, {"b", "two.safetensors"}}), "stored twice");
}

TEST(weights, pointers_of_git_lfs_are_told_apart) {
  EXPECT_HAS(complaint_about("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
             "git lfs pull");
}

TEST(weights, absent_files_are_named) {
  const TemporaryDirectory directory;
  EXPECT_HAS(complaint(directory), "model.safetensors");
  EXPECT_HAS(complaint(directory), "pytorch_model.bin.index.json");
  directory.write("pytorch_model.bin", std::string("x"));
  EXPECT_HAS(complaint(directory), "pytorch_model.bin: is no file of torch.save");
}

}  // namespace
}  // namespace vlm
