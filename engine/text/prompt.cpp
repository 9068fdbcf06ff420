// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/prompt.h"

#include <algorithm>
#include <string_view>
#include <utility>

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

// Each marker between <im_start> and <im_end>.
void surround_markers(std::vector<Turn>& turns) {
  constexpr std::string_view kStart = "<im_start>", kEnd = "<im_end>";
  for (Turn& turn : turns) {
    for (size_t at = turn.text.find(kImage); at != std::string::npos;
         at = turn.text.find(kImage, at)) {
      turn.text.insert(at + kImage.size(), kEnd).insert(at, kStart);
      at += kStart.size() + kImage.size() + kEnd.size();
    }
  }
}

// Cuts the prompt where the original does.
void cut_off(PromptIds& prompt, int64_t max_tokens) {
  if (static_cast<int64_t>(prompt.ids.size()) <= max_tokens) return;
  prompt.ids.resize(static_cast<size_t>(max_tokens));
  std::erase_if(prompt.image_offsets, [&](int64_t offset) { return offset >= max_tokens; });
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

std::string format_for_model(std::string_view model_name) {
  static constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
      {"llama-2", "llava_llama_2"},
      {"mistral", "mistral_instruct"},
      {"v1.6-34b", "chatml_direct"},
      {"v1", "llava_v1"},
      {"mpt", "mpt"},
  };
  std::string name(model_name);
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  for (const auto& [part, format] : kFormats) {
    if (name.find(part) != std::string::npos) return std::string(format);
  }
  return "llava_v0";
}

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
                                  const std::optional<ChatTemplate>& chat_template,
                                  const OriginalPrompts* original) {
  if (const Status status = check_turns(prompt.turns); !status) return status.error();
  if (prompt.format == kRaw) return raw_text(prompt, pictures);
  const bool by_name = prompt.format == kAuto && original != nullptr;
  const bool own = !by_name && (prompt.format == kAuto || prompt.format == "hf");
  const Conversation* conversation =
      find_conversation(own       ? "hf"
                        : by_name ? format_for_model(original->model_name)
                                  : prompt.format);
  if (conversation == nullptr) {
    return refusal("unknown prompt format " + prompt.format + ": use one of " +
                   joined(prompt_format_names()));
  }
  const Result<size_t> unmarked = unmarked_pictures(prompt.turns, pictures);
  if (!unmarked) return unmarked.error();
  if (own && chat_template) return own_text(*chat_template, prompt, pictures, *unmarked);
  std::vector<Turn> turns = with_pictures(*conversation, prompt.turns, *unmarked);
  if (original != nullptr && original->start_end) surround_markers(turns);
  return render(*conversation, turns, prompt.system);
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

Result<PromptIds> tokenize_pieces(const Tokenizer& tokenizer, const std::string& text,
                                  int64_t image_token_id,
                                  const std::vector<int64_t>& tokens_per_image,
                                  const OriginalPrompts& original) {
  PromptIds prompt;
  prompt.text = text;
  size_t picture = 0;
  bool has_bos = false;
  for (std::string_view rest = text;;) {
    const size_t begin = rest.find(kImage);
    const std::vector<int64_t> ids = tokenizer.encode(rest.substr(0, begin));
    if (picture == 0) has_bos = !ids.empty() && ids[0] == tokenizer.bos_id();
    const bool drop = has_bos && picture > 0 && !ids.empty();
    prompt.ids.insert(prompt.ids.end(), ids.begin() + (drop ? 1 : 0), ids.end());
    if (begin == std::string_view::npos) break;
    if (picture < tokens_per_image.size()) {
      prompt.image_offsets.push_back(static_cast<int64_t>(prompt.ids.size()));
      prompt.ids.insert(prompt.ids.end(), static_cast<size_t>(tokens_per_image[picture]),
                        image_token_id);
    }
    ++picture;
    rest.remove_prefix(begin + kImage.size());
  }
  if (picture != tokens_per_image.size()) {
    return refusal("the prompt has " + std::to_string(picture) + " <image> for " +
                   std::to_string(tokens_per_image.size()) +
                   " pictures: write one for each picture");
  }
  if (picture > 0 && original.max_tokens > 0) cut_off(prompt, original.max_tokens);
  return prompt;
}

}  // namespace vlm
