// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vlm/types.h"

namespace vlm {

/// How the turns of a conversation are strung together (LLaVA conversation.py, get_prompt; kLlama3:
/// the chat template of Llama 3's instruction models).
enum class SeparatorStyle { kSingle, kTwo, kMpt, kLlama2, kLlama3, kPlain, kHf };

/// How pictures that no text marks come into the conversation.
enum class PictureStyle {
  kLines,  ///< as lines `<image>` in front of the first user text
  kTags    ///< in a turn of their own before it, between <Image> and </Image>, which the assistant
           ///< has confirmed; white space around that text is taken off
};

/// One conversation template.
struct Conversation {
  std::string_view name;
  std::string_view system;
  std::string_view user;  ///< role names as printed
  std::string_view assistant;
  SeparatorStyle style;
  std::string_view sep;   ///< after the system text and the user's turns
  std::string_view sep2;  ///< after the assistant's turns, where the style tells them apart
  PictureStyle pictures = PictureStyle::kLines;
  std::string_view shown_user = {};  ///< an exchange that stands in front of all turns
  std::string_view shown_assistant = {};
};

/// The template of that name, or null. `hf` is the published chat template of LLaVA-1.5 in the
/// Hugging Face layout.
const Conversation* find_conversation(std::string_view name);

/// Names of all templates, in the order they are documented.
std::vector<std::string> conversation_names();

/// The turns with markers for `pictures` pictures that no text marks. Reentrant.
std::vector<Turn> with_pictures(const Conversation& conversation, std::vector<Turn> turns,
                                size_t pictures);

/// The whole text up to where the assistant answers. The turns alternate and end with the user's;
/// their texts hold the image markers already. `system` replaces the template's system text.
/// Reentrant.
std::string render(const Conversation& conversation, const std::vector<Turn>& turns,
                   const std::optional<std::string>& system);

}  // namespace vlm
