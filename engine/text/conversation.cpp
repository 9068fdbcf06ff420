// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/conversation.h"

#include <algorithm>
#include <array>

namespace vlm {
namespace {

constexpr std::string_view kHumanChat =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.";
constexpr std::string_view kUserChat =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.";
constexpr std::string_view kLlama2System =
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language.";
constexpr std::string_view kLongSystem =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased "
    "and positive in nature.\n\nIf a question does not make any sense, or is not factually "
    "coherent, explain why instead of answering something not correct. If you don't know the "
    "answer "
    "to a question, please don't share false information.";
constexpr std::string_view kMptSystem =
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The "
    "assistant gives helpful and honest answers.";
constexpr std::string_view kDirectSystem = "<|im_start|>system\nAnswer the questions.";
constexpr std::string_view kChatmlUser = "<|im_start|>user\n";
constexpr std::string_view kChatmlAssistant = "<|im_start|>assistant\n";

using enum SeparatorStyle;

constexpr std::array kConversations = {
    Conversation{"hf", "", "USER", "ASSISTANT", kHf, " ", " "},
    Conversation{"vicuna_v1", kUserChat, "USER", "ASSISTANT", kTwo, " ", "</s>"},
    Conversation{"v1", kUserChat, "USER", "ASSISTANT", kTwo, " ", "</s>"},
    Conversation{"llava_v0", kHumanChat, "Human", "Assistant", kSingle, "###", "###"},
    Conversation{"llava_v1", kHumanChat, "USER", "ASSISTANT", kTwo, " ", "</s>"},
    Conversation{"llava_llama_2", kLlama2System, "USER", "ASSISTANT", kLlama2, "<s>", "</s>"},
    Conversation{"llama_2", kLongSystem, "USER", "ASSISTANT", kLlama2, "<s>", "</s>"},
    Conversation{"mistral_instruct", "", "USER", "ASSISTANT", kLlama2, "", "</s>"},
    Conversation{"mistral_direct", kDirectSystem, kChatmlUser, kChatmlAssistant, kMpt, "<|im_end|>",
                 "<|im_end|>"},
    Conversation{"chatml_direct", kDirectSystem, kChatmlUser, kChatmlAssistant, kMpt, "<|im_end|>",
                 "<|im_end|>"},
    Conversation{"mpt", kMptSystem, kChatmlUser, kChatmlAssistant, kMpt, "<|im_end|>",
                 "<|im_end|>"},
    Conversation{"plain", "", "", "", kPlain, "\n", "\n"},
    Conversation{"v0_plain", "", "", "", kPlain, "\n", "\n"},
};

bool is_user(const Turn& turn) {
  return turn.role == Turn::Role::kUser;
}

std::string text(std::string_view view) {
  return std::string(view);
}

std::string render_named(const Conversation& c, const std::vector<Turn>& turns,
                         const std::string& system) {
  std::string result = system + text(c.sep);
  for (const Turn& turn : turns) {
    result += text(is_user(turn) ? c.user : c.assistant) + ": " + turn.text;
    result += is_user(turn) ? c.sep : c.sep2;
  }
  return result + text(c.assistant) + ":";
}

std::string render_mpt(const Conversation& c, const std::vector<Turn>& turns,
                       const std::string& system) {
  std::string result = system + text(c.sep);
  for (const Turn& turn : turns) {
    result += text(is_user(turn) ? c.user : c.assistant) + turn.text + text(c.sep);
  }
  return result + text(c.assistant);
}

std::string render_llama2(const Conversation& c, const std::vector<Turn>& turns,
                          const std::string& system) {
  std::string result;
  for (const Turn& turn : turns) {
    if (!is_user(turn)) {
      result += " " + turn.text + " " + text(c.sep2);
      continue;
    }
    const bool introduces = result.empty() && !system.empty();
    const std::string message =
        introduces ? "<<SYS>>\n" + system + "\n<</SYS>>\n\n" + turn.text : turn.text;
    result += text(c.sep) + "[INST] " + message + " [/INST]";
  }
  // The tokenizer puts BOS in front; the reference takes off any of the separator's characters.
  const size_t begin = c.sep.empty() ? 0 : result.find_first_not_of(c.sep);
  return begin == std::string::npos ? std::string() : result.substr(begin);
}

std::string render_plain(const Conversation& c, const std::vector<Turn>& turns,
                         const std::string& system) {
  std::string result = system;
  for (const Turn& turn : turns) result += turn.text + text(is_user(turn) ? c.sep : c.sep2);
  return result;
}

std::string render_hf(const Conversation& c, const std::vector<Turn>& turns,
                      const std::optional<std::string>& system) {
  std::string result = system ? *system + " " : "";
  for (const Turn& turn : turns) {
    result += text(is_user(turn) ? c.user : c.assistant) + ": " + turn.text + " ";
  }
  return result + text(c.assistant) + ":";
}

}  // namespace

const Conversation* find_conversation(std::string_view name) {
  const auto found = std::find_if(kConversations.begin(), kConversations.end(),
                                  [name](const Conversation& c) { return c.name == name; });
  return found == kConversations.end() ? nullptr : &*found;
}

std::vector<std::string> conversation_names() {
  std::vector<std::string> names;
  for (const Conversation& conversation : kConversations) names.emplace_back(conversation.name);
  return names;
}

std::string render(const Conversation& conversation, const std::vector<Turn>& turns,
                   const std::optional<std::string>& system) {
  const std::string introduction = system.value_or(text(conversation.system));
  switch (conversation.style) {
    case kSingle:
    case kTwo:
      return render_named(conversation, turns, introduction);
    case kMpt:
      return render_mpt(conversation, turns, introduction);
    case kLlama2:
      return render_llama2(conversation, turns, introduction);
    case kPlain:
      return render_plain(conversation, turns, introduction);
    case kHf:
      break;
  }
  return render_hf(conversation, turns, system);
}

}  // namespace vlm
