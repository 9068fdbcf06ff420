// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/conversation.h"

#include <algorithm>
#include <array>

#include "text/description.h"

namespace vlm {
namespace {

constexpr std::string_view kHumanChat =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.";
constexpr std::string_view kUserChat =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.";
constexpr std::string_view kTaggedChat =
    "A chat between a curious user and an artificial intelligence assistant. The assistant is able "
    "to understand the visual content that the user provides, and assist the user with a variety "
    "of tasks using natural language.The visual content will be provided with the following "
    "format: <Image>visual content</Image>.";
constexpr std::string_view kShownQuestion =
    "What are the key differences between renewable and non-renewable energy sources?";
constexpr std::string_view kShownAnswer =
    "Renewable energy sources are those that can be replenished naturally in a relatively short "
    "amount of time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy "
    "sources, on the other hand, are finite and will eventually be depleted, such as coal, oil, "
    "and natural gas. Here are some key differences between renewable and non-renewable energy "
    "sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "
    "energy sources are finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact than "
    "non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, "
    "and other negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they "
    "typically have lower operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more "
    "remote locations than non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to "
    "different situations and needs, while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
    "non-renewable sources are not, and their depletion can lead to economic and social "
    "instability.\n";
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

constexpr std::string_view kImage = "<image>";

using enum SeparatorStyle;
using enum PictureStyle;

constexpr std::array kConversations = {
    Conversation{"hf", "", "USER", "ASSISTANT", kHf, " ", " "},
    Conversation{"vicuna_v1", kUserChat, "USER", "ASSISTANT", kTwo, " ", "</s>"},
    Conversation{"v1", kUserChat, "USER", "ASSISTANT", kTwo, " ", "</s>"},
    Conversation{"v0", kHumanChat, "Human", "Assistant", kSingle, "###", "###", kLines,
                 kShownQuestion, kShownAnswer},
    Conversation{"default", kHumanChat, "Human", "Assistant", kSingle, "###", "###", kLines,
                 kShownQuestion, kShownAnswer},
    Conversation{"llava_v0", kHumanChat, "Human", "Assistant", kSingle, "###", "###"},
    Conversation{"llava_v1", kHumanChat, "USER", "ASSISTANT", kTwo, " ", "</s>"},
    Conversation{"v0_mmtag", kTaggedChat, "Human", "Assistant", kSingle, "###", "###", kTags},
    Conversation{"v1_mmtag", kTaggedChat, "USER", "ASSISTANT", kTwo, " ", "</s>", kTags},
    Conversation{"llava_llama_2", kLlama2System, "USER", "ASSISTANT", kLlama2, "<s>", "</s>"},
    Conversation{"llama_2", kLongSystem, "USER", "ASSISTANT", kLlama2, "<s>", "</s>"},
    Conversation{"llava_llama_3", kLlama2System, "user", "assistant", kLlama3, "<|eot_id|>",
                 "<|eot_id|>"},
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

// An empty turn stands for one that is still to be spoken: nothing ends it.
std::string render_named(const Conversation& c, const std::vector<Turn>& turns,
                         const std::string& system) {
  std::string result = system + text(c.sep);
  for (const Turn& turn : turns) {
    result += text(is_user(turn) ? c.user : c.assistant) + ":";
    if (!turn.text.empty()) result += " " + turn.text + text(is_user(turn) ? c.sep : c.sep2);
  }
  return result + text(c.assistant) + ":";
}

std::string render_mpt(const Conversation& c, const std::vector<Turn>& turns,
                       const std::string& system) {
  std::string result = system + text(c.sep);
  for (const Turn& turn : turns) {
    result += text(is_user(turn) ? c.user : c.assistant) + turn.text;
    if (!turn.text.empty()) result += text(c.sep);
  }
  return result + text(c.assistant);
}

std::string render_llama2(const Conversation& c, const std::vector<Turn>& turns,
                          const std::string& system) {
  std::string result;
  for (const Turn& turn : turns) {
    if (turn.text.empty()) continue;
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

std::string render_llama3(const Conversation& c, const std::vector<Turn>& turns,
                          const std::string& system) {
  const auto header = [](std::string_view role) {
    return "<|start_header_id|>" + text(role) + "<|end_header_id|>\n\n";
  };
  std::string result = "<|begin_of_text|>" + header("system") + text(trimmed(system)) + text(c.sep);
  for (const Turn& turn : turns) {
    result += header(is_user(turn) ? c.user : c.assistant) + text(trimmed(turn.text));
    result += text(c.sep);
  }
  return result + header(c.assistant);
}

std::string render_plain(const Conversation& c, const std::vector<Turn>& turns,
                         const std::string& system) {
  std::string result = system;
  for (const Turn& turn : turns) {
    if (!turn.text.empty()) result += turn.text + text(is_user(turn) ? c.sep : c.sep2);
  }
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

std::vector<Turn> with_pictures(const Conversation& conversation, std::vector<Turn> turns,
                                size_t pictures) {
  if (pictures == 0) return turns;
  const auto first = std::find_if(turns.begin(), turns.end(), is_user);
  std::string markers;
  if (conversation.pictures == kLines) {
    for (size_t i = 0; i < pictures; ++i) markers += text(kImage) + "\n";
    first->text.insert(0, markers);
    return turns;
  }
  for (size_t i = 0; i < pictures; ++i) markers += "<Image>" + text(kImage) + "</Image>";
  first->text = text(trimmed(first->text));
  turns.insert(first, {{Turn::Role::kUser, markers}, {Turn::Role::kAssistant, "Received."}});
  return turns;
}

std::string render(const Conversation& conversation, const std::vector<Turn>& own,
                   const std::optional<std::string>& system) {
  std::vector<Turn> turns;
  if (!conversation.shown_user.empty()) {
    turns = {{Turn::Role::kUser, text(conversation.shown_user)},
             {Turn::Role::kAssistant, text(conversation.shown_assistant)}};
  }
  turns.insert(turns.end(), own.begin(), own.end());
  const std::string introduction = system.value_or(text(conversation.system));
  switch (conversation.style) {
    case kSingle:
    case kTwo:
      return render_named(conversation, turns, introduction);
    case kMpt:
      return render_mpt(conversation, turns, introduction);
    case kLlama2:
      return render_llama2(conversation, turns, introduction);
    case kLlama3:
      return render_llama3(conversation, turns, introduction);
    case kPlain:
      return render_plain(conversation, turns, introduction);
    case kHf:
      break;
  }
  return render_hf(conversation, turns, system);
}

}  // namespace vlm
