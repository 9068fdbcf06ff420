// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/prompt.h"

#include <algorithm>
#include <string_view>

#include "text/conversation.h"

namespace vlm {
namespace {

constexpr std::string_view kImage = "<image>";
constexpr std::string_view kAuto = "auto";
constexpr std::string_view kRaw = "raw";

Error refusal(std::string message) {
  return {ErrorKind::kInvalidArgument, std::move(message), {}};
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

size_t count_markers(std::string_view text) {
  size_t count = 0;
  for (size_t at = text.find(kImage); at != text.npos; at = text.find(kImage, at + kImage.size())) {
    ++count;
  }
  return count;
}

Status check_turns(const std::vector<Turn>& turns) {
  if (turns.empty() || turns.back().role != Turn::Role::kUser) {
    return refusal("the prompt is empty: give the user's text as the last turn");
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    const bool user = turns[turns.size() - 1 - i].role == Turn::Role::kUser;
    if (user != (i % 2 == 0)) {
      return refusal("the turns of a conversation must alternate between user and assistant");
    }
  }
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  if (std::all_of(turns.back().text.begin(), turns.back().text.end(), blank)) {
    return refusal("the prompt is empty: say what is asked, for example \"Describe the scene.\"");
  }
  return ok_status();
}

/// How many pictures have no marker in the texts: all of them, or none.
Result<size_t> unmarked_pictures(const std::vector<Turn>& turns, size_t pictures) {
  size_t markers = 0;
  for (const Turn& turn : turns) markers += count_markers(turn.text);
  if (markers == pictures) return size_t{0};
  if (markers == 0) return pictures;
  return refusal("the prompt has " + std::to_string(markers) + " <image> for " +
                 std::to_string(pictures) +
                 " pictures: write one for each picture, or none at all");
}

/// Pictures without a marker of their own go in front of the first user text.
std::vector<Turn> with_markers(std::vector<Turn> turns, size_t pictures) {
  std::string prefix;
  for (size_t i = 0; i < pictures; ++i) prefix += std::string(kImage) + "\n";
  const auto first = std::find_if(turns.begin(), turns.end(),
                                  [](const Turn& turn) { return turn.role == Turn::Role::kUser; });
  first->text.insert(0, prefix);
  return turns;
}

/// The text that the checkpoint's own template makes; it may not drop a picture or add one.
Result<std::string> own_text(const ChatTemplate& chat_template, const Prompt& prompt,
                             size_t pictures, size_t unmarked) {
  Result<std::string> text =
      apply_chat_template(chat_template, prompt.turns, unmarked, prompt.system);
  if (!text) return text;
  const size_t markers = count_markers(*text);
  if (markers == pictures) return text;
  return Error{ErrorKind::kUnsupported,
               chat_template.file + ": the chat template prints " + std::to_string(markers) +
                   " <image> for " + std::to_string(pictures) +
                   " pictures; choose a prompt format yourself (--prompt-format, property "
                   "prompt-format)",
               *text};
}

Result<std::string> raw_text(const Prompt& prompt, size_t pictures) {
  const std::string& text = prompt.turns.back().text;
  const size_t markers = count_markers(text);
  if (prompt.turns.size() != 1 || prompt.system) {
    return refusal("prompt format raw takes one text and no system text: it is the whole prompt");
  }
  if (markers != pictures) {
    return refusal("the raw prompt has " + std::to_string(markers) + " <image> for " +
                   std::to_string(pictures) + " pictures: write one for each picture");
  }
  return text;
}

}  // namespace

const std::vector<std::string>& prompt_format_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = {std::string(kAuto), std::string(kRaw)};
    const std::vector<std::string> conversations = conversation_names();
    all.insert(all.begin() + 1, conversations.begin(), conversations.begin() + 1);
    all.insert(all.end(), conversations.begin() + 1, conversations.end());
    return all;
  }();
  return names;
}

Result<std::string> format_prompt(const Prompt& prompt, size_t pictures,
                                  const std::optional<ChatTemplate>& chat_template) {
  if (const Status status = check_turns(prompt.turns); !status) return status.error();
  if (prompt.format == kRaw) return raw_text(prompt, pictures);
  const bool own = prompt.format == kAuto || prompt.format == "hf";
  const Conversation* conversation = find_conversation(own ? "hf" : prompt.format);
  if (conversation == nullptr) {
    return refusal("unknown prompt format " + prompt.format + ": use one of " +
                   joined(prompt_format_names()));
  }
  const Result<size_t> unmarked = unmarked_pictures(prompt.turns, pictures);
  if (!unmarked) return unmarked.error();
  if (own && chat_template) return own_text(*chat_template, prompt, pictures, *unmarked);
  return render(*conversation, with_markers(prompt.turns, *unmarked), prompt.system);
}

Result<PromptIds> tokenize_prompt(const Tokenizer& tokenizer, const std::string& text,
                                  int64_t image_token_id,
                                  const std::vector<int64_t>& tokens_per_image,
                                  bool from_template) {
  PromptIds prompt;
  prompt.text = text;
  size_t picture = 0;
  std::vector<int64_t> ids = tokenizer.encode(text);
  const int64_t bos = tokenizer.bos_id();
  if (from_template && bos >= 0 && ids.size() > 1 && ids[0] == bos && ids[1] == bos) {
    ids.erase(ids.begin());
  }
  for (int64_t id : ids) {
    if (id != image_token_id) {
      prompt.ids.push_back(id);
      continue;
    }
    if (picture < tokens_per_image.size()) {
      prompt.image_offsets.push_back(static_cast<int64_t>(prompt.ids.size()));
      prompt.ids.insert(prompt.ids.end(), static_cast<size_t>(tokens_per_image[picture]), id);
    }
    ++picture;
  }
  if (picture != tokens_per_image.size()) {
    return refusal("the prompt has " + std::to_string(picture) + " image tokens for " +
                   std::to_string(tokens_per_image.size()) +
                   " pictures: write <image> once for each picture, and check that the "
                   "tokenizer knows the token <image>");
  }
  return prompt;
}

}  // namespace vlm
