// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/prompt.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint_writer.h"

namespace vlm {
namespace {

Turn user(const std::string& text) {
  return {Turn::Role::kUser, text};
}

Turn assistant(const std::string& text) {
  return {Turn::Role::kAssistant, text};
}

std::string formatted(const std::string& format, std::vector<Turn> turns, size_t pictures = 1,
                      std::optional<std::string> system = std::nullopt) {
  const auto text = format_prompt({format, system, std::move(turns)}, pictures, std::nullopt);
  return text ? *text : "refused: " + text.error().message;
}

ErrorKind refusal(const Prompt& prompt, size_t pictures) {
  const auto text = format_prompt(prompt, pictures, std::nullopt);
  EXPECT_FALSE(text) << *text;
  return text ? ErrorKind::kInternal : text.error().kind;
}

const std::vector<Turn> kDialogue = {user("one"), assistant("two"), user("three")};

constexpr const char* kUserSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.";
constexpr const char* kHumanSystem =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.";
constexpr const char* kLlamaSystem =
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language.";

TEST(prompt, hugging_faces_form) {
  EXPECT_EQ(formatted("hf", {user("What is this?")}), "USER: <image>\nWhat is this? ASSISTANT:");
  EXPECT_EQ(formatted("auto", kDialogue, 2),
            "USER: <image>\n<image>\none ASSISTANT: two USER: three ASSISTANT:");
  EXPECT_EQ(formatted("hf", {user("hi")}, 0, "Be kind."), "Be kind. USER: hi ASSISTANT:");
}

TEST(prompt, vicuna_and_llava_v1) {
  const std::string turns = " USER: <image>\none ASSISTANT: two</s>USER: three ASSISTANT:";
  EXPECT_EQ(formatted("vicuna_v1", kDialogue), kUserSystem + turns);
  EXPECT_EQ(formatted("llava_v1", kDialogue), kHumanSystem + turns);
  EXPECT_EQ(formatted("vicuna_v1", {user("one")}, 0, "S."), "S. USER: one ASSISTANT:");
}

TEST(prompt, llava_v0) {
  EXPECT_EQ(formatted("llava_v0", kDialogue),
            kHumanSystem +
                std::string("###Human: <image>\none###Assistant: two###Human: three###Assistant:"));
}

TEST(prompt, v0_shows_an_exchange_first) {
  const std::string shown = formatted("v0", kDialogue);
  EXPECT_TRUE(shown.starts_with(kHumanSystem + std::string("###Human: What are the key diff")));
  EXPECT_TRUE(shown.ends_with(
      "economic and social instability.\n###Human: <image>\none###Assistant: two###Human: "
      "three###Assistant:"));
  EXPECT_EQ(formatted("default", kDialogue), shown);
}

TEST(prompt, tagged_pictures_have_a_turn_of_their_own) {
  const std::string v1 = formatted("v1_mmtag", {user(" one\n")}, 2, "S.");
  EXPECT_EQ(v1,
            "S. USER: <Image><image></Image><Image><image></Image> ASSISTANT: Received.</s>"
            "USER: one ASSISTANT:");
  EXPECT_EQ(formatted("v1_mmtag", {user(" one\n")}, 0, "S."), "S. USER:  one\n ASSISTANT:");
  EXPECT_EQ(formatted("v0_mmtag", {user("<image> one")}, 1, "S."),
            "S.###Human: <image> one###Assistant:");
  EXPECT_TRUE(formatted("v0_mmtag", kDialogue)
                  .ends_with("format: <Image>visual content</Image>.###Human: "
                             "<Image><image></Image>###Assistant: Received.###Human: one###"
                             "Assistant: two###Human: three###Assistant:"));
  const OriginalPrompts original{"", true, 0};
  EXPECT_EQ(*format_prompt({"v1_mmtag", "S.", {user("one")}}, 1, std::nullopt, &original),
            "S. USER: <Image><im_start><image><im_end></Image> ASSISTANT: Received.</s>USER: one "
            "ASSISTANT:");
}

TEST(prompt, llama_3) {
  EXPECT_EQ(formatted("llava_llama_3", {user("one"), assistant(" two\n"), user("three")}, 1, "S."),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n<image>\none<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\ntwo<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nthree<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(prompt, llama_2_and_mistral) {
  EXPECT_EQ(formatted("llava_llama_2", kDialogue),
            "[INST] <<SYS>>\n" + std::string(kLlamaSystem) +
                "\n<</SYS>>\n\n<image>\none [/INST] two </s><s>[INST] three [/INST]");
  EXPECT_EQ(formatted("llava_llama_2", {user("one")}, 0, ""), "[INST] one [/INST]");
  EXPECT_EQ(formatted("mistral_instruct", kDialogue),
            "[INST] <image>\none [/INST] two </s>[INST] three [/INST]");
}

TEST(prompt, chatml_and_mpt) {
  const std::string turns =
      "<|im_end|><|im_start|>user\n<image>\none<|im_end|><|im_start|>assistant\ntwo<|im_end|>"
      "<|im_start|>user\nthree<|im_end|><|im_start|>assistant\n";
  const std::string direct = "<|im_start|>system\nAnswer the questions." + turns;
  EXPECT_EQ(formatted("chatml_direct", kDialogue), direct);
  EXPECT_EQ(formatted("mistral_direct", kDialogue), direct);
  EXPECT_EQ(formatted("mpt", kDialogue),
            "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The "
            "assistant gives helpful and honest answers." +
                turns);
}

TEST(prompt, plain_and_raw) {
  EXPECT_EQ(formatted("plain", {user("one")}), "<image>\none\n");
  EXPECT_EQ(formatted("raw", {user("a <image> b")}), "a <image> b");
  EXPECT_EQ(refusal({"raw", {}, {user("no picture")}}, 1), ErrorKind::kInvalidArgument);
  EXPECT_EQ(refusal({"raw", {}, kDialogue}, 0), ErrorKind::kInvalidArgument);
}

TEST(prompt, every_name_is_known_and_others_are_listed) {
  for (const std::string& name : prompt_format_names()) {
    EXPECT_FALSE(formatted(name, {user("<image> x")}).starts_with("refused")) << name;
  }
  for (const char* name :
       {"auto", "hf", "raw", "vicuna_v1", "llava_v0", "llava_v1", "llava_llama_2",
        "mistral_instruct", "mistral_direct", "chatml_direct", "mpt", "plain"}) {
    const auto& names = prompt_format_names();
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
  EXPECT_NE(formatted("alpaca", {user("x")}).find("mistral_direct"), std::string::npos);
}

TEST(prompt, markers_in_the_text_are_kept_and_counted) {
  EXPECT_EQ(formatted("hf", {user("Compare <image> with <image>.")}, 2),
            "USER: Compare <image> with <image>. ASSISTANT:");
  EXPECT_EQ(formatted("hf", {user("first"), assistant("yes"), user("<image> and this?")}, 1),
            "USER: first ASSISTANT: yes USER: <image> and this? ASSISTANT:");
  for (const size_t pictures : {0, 1, 3}) {
    EXPECT_EQ(refusal({"hf", {}, {user("<image> <image>")}}, pictures),
              ErrorKind::kInvalidArgument);
  }
}

TEST(prompt, an_empty_one_is_refused) {
  EXPECT_EQ(refusal({"auto", {}, {}}, 1), ErrorKind::kInvalidArgument);
  EXPECT_EQ(refusal({"auto", {}, {user("")}}, 1), ErrorKind::kInvalidArgument);
  EXPECT_EQ(refusal({"vicuna_v1", {}, {user(" \n\t")}}, 1), ErrorKind::kInvalidArgument);
  EXPECT_EQ(refusal({"auto", {}, {user("a"), assistant("b")}}, 1), ErrorKind::kInvalidArgument);
  EXPECT_EQ(refusal({"auto", {}, {user("a"), user("b")}}, 1), ErrorKind::kInvalidArgument);
}

constexpr const char* kPublished =
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

ChatTemplate chat_template(const std::string& source) {
  return {source, "dir/chat_template.json", {{"bos_token", "<s>"}, {"eos_token", "</s>"}}};
}

std::string applied(const std::string& source, std::vector<Turn> turns, size_t pictures,
                    std::optional<std::string> system = std::nullopt) {
  const auto text =
      format_prompt({"auto", system, std::move(turns)}, pictures, chat_template(source));
  return text ? *text : "refused: " + text.error().message;
}

TEST(chat_template, the_published_one_gives_the_built_in_form) {
  EXPECT_EQ(applied(kPublished, kDialogue, 2), formatted("hf", kDialogue, 2));
  EXPECT_EQ(applied(kPublished, {user("a <image> b")}, 1), "USER: a <image> b ASSISTANT:");
  EXPECT_EQ(applied(kPublished, {user("hi")}, 0, "Be kind."), "Be kind. USER: hi ASSISTANT:");
}

TEST(chat_template, text_models_templates_get_texts) {
  const std::string source =
      "{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] | trim }}"
      "{{ eos_token if message['role'] == 'assistant' }}{% endfor %}";
  EXPECT_EQ(applied(source, kDialogue, 1), "[user] <image>\none[assistant] two</s>[user] three");
}

TEST(chat_template, one_that_cant_be_applied_is_refused_with_the_cure) {
  const auto refused = [](const std::string& source) {
    const auto text = format_prompt({"auto", {}, {user("x")}}, 1, chat_template(source));
    EXPECT_FALSE(text) << *text;
    return text ? "" : text.error().message;
  };
  for (const char* source :
       {"\n{% macro f() %}{% endmacro %}", "\n{{ messages }}", "\n{{ 1 / 2 }}"}) {
    EXPECT_TRUE(refused(source).starts_with("dir/chat_template.json: line 2 of ")) << source;
    EXPECT_NE(refused(source).find("--prompt-format"), std::string::npos) << source;
  }
  EXPECT_NE(refused("no picture").find("prints 0 <image> for 1 pictures"), std::string::npos);
  EXPECT_NE(refused("{{ raise_exception('never') }}").find("never"), std::string::npos);
  EXPECT_TRUE(format_prompt({"vicuna_v1", {}, {user("x")}}, 1, chat_template("{{ messages }}")));
}

TEST(prompt, a_templates_own_bos_is_the_only_one) {
  const test::TemporaryDirectory directory;
  test::SmallCheckpoint().write(directory);
  const auto tokenizer = Tokenizer::load(directory.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto count = [&](const char* text, bool from_template) {
    const auto ids = tokenize_prompt(**tokenizer, text, -1, {}, from_template);
    return std::count(ids->ids.begin(), ids->ids.end(), (*tokenizer)->bos_id());
  };
  EXPECT_EQ(count("<s>ab", true), 1);
  EXPECT_EQ(count("ab", true), 1);
  EXPECT_EQ(count("<s>ab", false), 2);
}

TEST(prompt, every_marker_becomes_its_pictures_tokens) {
  const test::TemporaryDirectory directory;
  const test::SmallCheckpoint checkpoint;
  checkpoint.write(directory);
  const auto tokenizer = Tokenizer::load(directory.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto image = static_cast<int64_t>(checkpoint.pieces.size());
  const auto ids = tokenize_prompt(**tokenizer, "a<image><image>b", image, {2, 3});
  ASSERT_TRUE(ids) << ids.error().message;
  EXPECT_EQ(ids->image_offsets, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(ids->ids.size(), 2u + 5u + 1u);
  EXPECT_EQ(std::count(ids->ids.begin(), ids->ids.end(), image), 5);
  EXPECT_FALSE(tokenize_prompt(**tokenizer, "a", image, {2}));
  EXPECT_FALSE(tokenize_prompt(**tokenizer, "a<image>", image, {}));
}

}  // namespace
}  // namespace vlm
