// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include "checkpoint_writer.h"
#include "text/utf8.h"

namespace vlm {
namespace {

using test::Json;
using test::SmallCheckpoint;
using test::TemporaryDirectory;
using Ids = std::vector<int64_t>;

std::unique_ptr<const Tokenizer> load(const SmallCheckpoint& checkpoint) {
  const TemporaryDirectory directory;
  checkpoint.write(directory);
  auto tokenizer = Tokenizer::load(directory.path());
  EXPECT_TRUE(tokenizer) << (tokenizer ? "" : tokenizer.error().message);
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

std::unique_ptr<const Tokenizer> load_with(const Json& settings) {
  SmallCheckpoint checkpoint;
  checkpoint.tokenizer.update(settings);
  return load(checkpoint);
}

std::string complaint(const SmallCheckpoint& checkpoint) {
  const TemporaryDirectory directory;
  checkpoint.write(directory);
  const auto tokenizer = Tokenizer::load(directory.path());
  return tokenizer ? "" : tokenizer.error().message;
}

/// Pieces as written, for readable expectations.
std::vector<std::string> tokens(const Tokenizer& tokenizer, std::string_view text) {
  const auto pieces = test::small_pieces();
  std::vector<std::string> names;
  for (const int64_t id : tokenizer.encode(text)) {
    names.push_back(id < static_cast<int64_t>(pieces.size()) ? pieces[id].text
                                                             : tokenizer.token_text(id));
  }
  return names;
}

using Names = std::vector<std::string>;

TEST(tokenizer, joins_the_best_pair_first) {
  const auto tokenizer = load({});
  EXPECT_EQ(tokens(*tokenizer, "abc"), (Names{"<s>", "▁abc"}));
  EXPECT_EQ(tokens(*tokenizer, "abc abcab"), (Names{"<s>", "▁abc", "▁abc", "ab"}));
  EXPECT_EQ(tokens(*tokenizer, ""), Names{"<s>"});
}

TEST(tokenizer, unknown_characters_become_bytes) {
  const auto tokenizer = load({});
  EXPECT_EQ(tokens(*tokenizer, "aé\nà"), (Names{"<s>", "▁a", "é", "<0x0A>", "<0xC3>", "<0xA0>"}));
}

TEST(tokenizer, legacy_marks_every_stretch_of_text) {
  const std::string text = "a</s>b <image> c<image>";
  EXPECT_EQ(tokens(*load_with({{"legacy", false}}), text),
            (Names{"<s>", "▁a", "</s>", "b", "▁", "<image>", "▁", "c", "<image>"}));
  EXPECT_EQ(tokens(*load_with({{"legacy", true}}), text),
            (Names{"<s>", "▁a", "</s>", "▁", "b", "▁", "<image>", "▁", "c", "<image>"}));
  EXPECT_EQ(tokens(*load({}), "</s>a"), (Names{"<s>", "</s>", "a"}));
  EXPECT_EQ(tokens(*load_with({{"add_prefix_space", false}}), "a a"), (Names{"<s>", "a", "▁a"}));
}

TEST(tokenizer, a_leading_space_is_the_mark) {
  for (const bool legacy : {false, true}) {
    const auto tokenizer = load_with({{"legacy", legacy}});
    EXPECT_EQ(tokens(*tokenizer, " a"), (Names{"<s>", "▁a"}));
    EXPECT_EQ(tokens(*tokenizer, "  a"), (Names{"<s>", "▁", "▁a"}));
  }
}

TEST(tokenizer, bos_and_eos_as_the_flags_say) {
  EXPECT_EQ(load_with({{"add_bos_token", nullptr}})->encode("a").size(), 1u);
  const auto tokenizer = load_with({{"add_eos_token", true}});
  EXPECT_EQ(tokenizer->encode("a").front(), tokenizer->bos_id());
  EXPECT_EQ(tokenizer->encode("a").back(), tokenizer->eos_id());
}

TEST(tokenizer, added_tokens_take_white_space_where_they_say_so) {
  SmallCheckpoint checkpoint;
  auto& decoder = checkpoint.tokenizer["added_tokens_decoder"];
  const auto image = std::to_string(checkpoint.pieces.size());
  decoder[image]["lstrip"] = decoder[image]["rstrip"] = true;
  EXPECT_EQ(tokens(*load(checkpoint), "a \n\u3000<image> \t b"),
            (Names{"<s>", "▁a", "<image>", "b"}));
}

TEST(tokenizer, the_longest_added_token_wins) {
  SmallCheckpoint checkpoint;
  const auto next = std::to_string(checkpoint.pieces.size() + 2);
  checkpoint.tokenizer["added_tokens_decoder"][next] = test::added_token("<image>a");
  EXPECT_EQ(tokens(*load(checkpoint), "<image>ab<image>b"),
            (Names{"<s>", "<image>a", "b", "<image>", "b"}));
}

TEST(tokenizer, decoding_drops_special_tokens_and_one_space) {
  const auto tokenizer = load({});
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab <image> c</s>")), "ab  c");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("  a")), " a");
  EXPECT_EQ(tokenizer->decode({}), "");
  const Ids unknown = {-5, 100000};
  EXPECT_EQ(tokenizer->decode(unknown), "");
}

TEST(tokenizer, a_broken_run_of_bytes_is_one_replacement_for_each) {
  const auto tokenizer = load({});
  const Ids ids = {3 + 0xC3, 3 + 0xA9, 3 + 0xC3, *tokenizer->id_of("a"), 3 + 0xC3, 3 + 0xA9};
  EXPECT_EQ(tokenizer->decode(ids), "\uFFFD\uFFFD\uFFFDaé");
}

TEST(tokenizer, broken_text_counts_as_replacement_characters) {
  const auto tokenizer = load({});
  EXPECT_EQ(tokenizer->encode("a\xE4\xB8\xFF"), tokenizer->encode("a\uFFFD\uFFFD"));
  EXPECT_EQ(utf8_repaired("\xF0\x9F\x98 \xED\xA0\x80 \xC0\xAF \xF5"),
            "\uFFFD \uFFFD\uFFFD\uFFFD \uFFFD\uFFFD \uFFFD");
  EXPECT_EQ(utf8_repaired("é中😀"), "é中😀");
}

TEST(tokenizer, a_stream_grows_by_whole_characters_to_the_same_text) {
  const auto tokenizer = load({});
  const Ids ids = tokenizer->encode("ab 😀à</s> c😀b");
  StreamDecoder stream(*tokenizer);
  std::string grown;
  for (const int64_t id : ids) {
    const std::string fresh = stream.push(id);
    EXPECT_TRUE(utf8_valid(fresh));
    grown += fresh;
    EXPECT_EQ(stream.text(), grown);
    EXPECT_TRUE(tokenizer->decode(ids).starts_with(grown));
  }
  EXPECT_EQ(grown, tokenizer->decode(ids));
  EXPECT_EQ(grown, "ab 😀à c😀b");
}

TEST(tokenizer, older_files_give_the_same_tokens) {
  SmallCheckpoint checkpoint;
  checkpoint.tokenizer.erase("added_tokens_decoder");
  const auto image = static_cast<int64_t>(checkpoint.pieces.size());
  const TemporaryDirectory directory;
  checkpoint.write(directory);
  directory.write("added_tokens.json", Json{{"<image>", image}, {"<pad>", image + 1}});
  directory.write("special_tokens_map.json",
                  Json{{"pad_token", {{"content", "<pad>"}}}, {"bos_token", "<s>"}});
  const auto tokenizer = Tokenizer::load(directory.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->id_of("<image>"), image);
  EXPECT_FALSE((*tokenizer)->is_special(image));  // nothing calls it special
  EXPECT_TRUE((*tokenizer)->is_special(image + 1));
  EXPECT_EQ((*tokenizer)->vocab_size(), image + 2);
}

TEST(tokenizer, control_and_user_pieces_are_cut_out) {
  SmallCheckpoint checkpoint;
  checkpoint.pieces.push_back({"<ctl>", 3});
  checkpoint.pieces.push_back({"cab", 4});
  checkpoint.tokenizer.erase("added_tokens_decoder");
  const auto tokenizer = load(checkpoint);
  const int64_t control = static_cast<int64_t>(checkpoint.pieces.size()) - 2;
  const int64_t a = *tokenizer->id_of("▁a");
  EXPECT_EQ(tokenizer->encode("acab<ctl>"), (Ids{1, a, control + 1, control}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("acab<ctl>")), "acab");
}

TEST(tokenizer, ids_that_contradict_the_vocabulary_are_refused) {
  SmallCheckpoint checkpoint;
  checkpoint.tokenizer["added_tokens_decoder"] = {{"999", test::added_token("<image>")}};
  EXPECT_NE(complaint(checkpoint).find("999"), std::string::npos);
  checkpoint.tokenizer["added_tokens_decoder"] = {{"4", test::added_token("</s>")}};
  EXPECT_NE(complaint(checkpoint).find("\"</s>\" has the id 4, but 2"), std::string::npos);
  checkpoint.tokenizer["added_tokens_decoder"] = {{"x", test::added_token("<image>")}};
  EXPECT_NE(complaint(checkpoint), "");
  checkpoint.tokenizer["added_tokens_decoder"] = {{"270", {{"content", ""}}}};
  EXPECT_NE(complaint(checkpoint), "");
}

TEST(tokenizer, other_classes_are_refused) {
  SmallCheckpoint checkpoint;
  checkpoint.tokenizer["tokenizer_class"] = "GPT2Tokenizer";
  EXPECT_NE(complaint(checkpoint).find("GPT2Tokenizer"), std::string::npos);
}

TEST(tokenizer, hostile_models_are_refused) {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& model) {
    directory.write("tokenizer.model", model);
    return !Tokenizer::load(directory.path());
  };
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused("not a model"));
  EXPECT_TRUE(refused(std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11)));
  EXPECT_TRUE(refused(std::string(20, '\xFF')));
  EXPECT_TRUE(refused(test::sentencepiece_model({{"a"}, {"a"}})));
  EXPECT_TRUE(refused(test::sentencepiece_model({{"a"}, {""}})));
  EXPECT_TRUE(refused(test::sentencepiece_model({{"a"}, {"\xFF"}})));
  EXPECT_TRUE(refused(test::sentencepiece_model({{"a", 9}})));
  EXPECT_TRUE(refused(test::sentencepiece_model({{std::string(5000, 'a')}})));
  EXPECT_FALSE(refused(test::sentencepiece_model({{std::string(4000, 'a')}, {"a"}})));
}

TEST(tokenizer, damaged_models_end_in_a_tokenizer_or_an_error) {
  const TemporaryDirectory directory;
  SmallCheckpoint().write(directory);
  const std::string model = directory.read("tokenizer.model");
  uint32_t state = 1;
  const auto next = [&](size_t below) {
    return ((state = state * 1664525u + 1013904223u) >> 8) % below;
  };
  int loaded = 0, refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string damaged = model;
    if (i % 2 == 0) damaged.resize(next(model.size()));
    for (size_t flips = i % 2 == 0 ? 0 : 1 + next(4); flips > 0; --flips) {
      damaged[next(damaged.size())] = static_cast<char>(next(256));
    }
    directory.write("tokenizer.model", damaged);
    const auto tokenizer = Tokenizer::load(directory.path());
    if (tokenizer) {
      (*tokenizer)->decode((*tokenizer)->encode("abc <image> \u4E2D"));
      ++loaded;
    } else {
      EXPECT_NE(tokenizer.error().message.find(directory.path()), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(loaded, 0);
  EXPECT_GT(refused, 0);
}

/// tokenizer.json of the published kind over a few pieces.
Json small_json() {
  return Json::parse(R"({
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true},
                     {"id": 1, "content": "<s>", "special": true},
                     {"id": 7, "content": "<image>", "special": true, "normalized": false}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
      {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "ab": 6},
      "merges": ["a b", ["▁", "a"]]}})");
}

TEST(tokenizer_json, is_obeyed_before_the_model) {
  const TemporaryDirectory directory;
  SmallCheckpoint().write(directory);
  directory.remove("tokenizer_config.json");
  directory.write("tokenizer.json", small_json());
  const auto tokenizer = Tokenizer::load(directory.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->encode("ab a<image> b"), (Ids{1, 2, 6, 5, 7, 2, 2, 4}));
  EXPECT_EQ((*tokenizer)->encode("xyz"), (Ids{1, 2, 0}));
  const Ids ids = {1, 5, 7, 6};
  EXPECT_EQ((*tokenizer)->decode(ids), "aab");
}

TEST(tokenizer_json, what_is_not_of_the_kind_is_refused) {
  const auto refused = [](const std::string& pointer, const Json& value) {
    const TemporaryDirectory directory;
    Json json = small_json();
    json[Json::json_pointer(pointer)] = value;
    directory.write("tokenizer.json", json);
    return !Tokenizer::load(directory.path());
  };
  EXPECT_FALSE(refused("/version", "1.0"));
  EXPECT_TRUE(refused("/model/type", "Unigram"));
  EXPECT_TRUE(refused("/model/merges/0", "a x"));
  EXPECT_TRUE(refused("/model/merges/0", "a  b"));
  EXPECT_TRUE(refused("/model/vocab/a", 4));
  EXPECT_TRUE(refused("/model/vocab/a", int64_t{1} << 40));
  EXPECT_TRUE(refused("/model/vocab", Json::array()));
  EXPECT_TRUE(refused("/model/unk_token", "?"));
  EXPECT_TRUE(refused("/normalizer", {{"type", "NFC"}}));
  EXPECT_TRUE(refused("/pre_tokenizer", {{"type", "ByteLevel"}}));
  EXPECT_TRUE(refused("/decoder", {{"type", "ByteLevel"}}));
  EXPECT_TRUE(refused("/post_processor", {{"type", "ByteLevel"}}));
  EXPECT_TRUE(refused("/added_tokens/2/id", 9));
  EXPECT_TRUE(refused("/added_tokens/2/single_word", true));
}

/// As the original layout's reference reads tokenizer.model, with two tokens of its own.
std::unique_ptr<const Tokenizer> load_as(TokenizerReader reader, const Json& settings) {
  SmallCheckpoint checkpoint;
  checkpoint.tokenizer = settings;
  const TemporaryDirectory directory;
  checkpoint.write(directory);
  auto tokenizer = Tokenizer::load(directory.path(), {reader, {"<im_start>", "<im_end>"}});
  EXPECT_TRUE(tokenizer) << (tokenizer ? "" : tokenizer.error().message);
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

TEST(tokenizer, the_slow_class_adds_bos_and_is_legacy_unless_told_otherwise) {
  const auto tokenizer = load_as(TokenizerReader::kSlow4, Json::object());
  EXPECT_EQ(tokens(*tokenizer, " ab</s>ab"), (Names{"<s>", "▁", "▁ab", "</s>", "▁ab"}));
  EXPECT_EQ(tokens(*tokenizer, "<im_end>ab"), (Names{"<s>", "<im_end>", "▁ab"}));
  EXPECT_EQ(tokens(*tokenizer, ""), Names{"<s>"});
}

TEST(tokenizer, the_slow_class_without_legacy_marks_the_text_alone) {
  const auto tokenizer = load_as(TokenizerReader::kSlow4, {{"legacy", false}});
  EXPECT_EQ(tokens(*tokenizer, " ab</s>ab"), (Names{"<s>", "▁", "▁ab", "</s>", "ab"}));
  // The mark stays alone in front of tokens without a role.
  EXPECT_EQ(tokens(*tokenizer, "<im_end>ab"), (Names{"<s>", "▁", "<im_end>", "ab"}));
  EXPECT_EQ(tokens(*tokenizer, "</s>ab"), (Names{"<s>", "</s>", "ab"}));
  EXPECT_EQ(tokens(*tokenizer, ""), Names{"<s>"});
}

TEST(tokenizer, what_the_slow_class_is_converted_to_is_always_legacy) {
  const auto tokenizer = load_as(TokenizerReader::kFast4, {{"legacy", false}});
  EXPECT_EQ(tokens(*tokenizer, " ab</s>ab"), (Names{"<s>", "▁", "▁ab", "</s>", "▁ab"}));
}

TEST(tokenizer, the_slow_class_keeps_characters_among_broken_bytes) {
  // 0xC3 0xA9 is é, 0xE4 0xB8 begins a character.
  const auto byte = [](int64_t value) { return 3 + value; };
  const Ids ids = {byte(0xE4), byte(0xB8), byte(0xC3), byte(0xA9), byte(0xFF)};
  const std::string lost = std::string(kReplacement);
  for (const auto& [reader, expected] : std::vector<std::pair<TokenizerReader, std::string>>{
           {TokenizerReader::kSlow4, lost + lost + "é" + lost},
           {TokenizerReader::kFast4, lost + lost + lost + lost + lost}}) {
    const auto tokenizer = load_as(reader, Json::object());
    EXPECT_EQ(tokenizer->decode(ids), expected);
    StreamDecoder stream(*tokenizer);
    for (const int64_t id : ids) stream.push(id);
    stream.push(tokenizer->id_of("a").value());
    EXPECT_EQ(stream.text(), expected + "a");
  }
}

}  // namespace
}  // namespace vlm
