// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// A checkpoint's own form of a conversation, in Jinja.
struct ChatTemplate {
  std::string source;
  std::string file;                           ///< where it lies, for messages
  std::map<std::string, std::string> tokens;  ///< what bos_token, eos_token … stand for
};

/// What the template makes of the conversation, up to where the assistant answers. `pictures` of
/// them belong to the first user turn; those that a text marks itself are not among them. Templates
/// of text models, which take no lists of pictures and texts, get the pictures as lines `<image>`.
/// Errors name the file, the line and what is not supported, and the cure. Reentrant.
Result<std::string> apply_chat_template(const ChatTemplate& chat_template,
                                        const std::vector<Turn>& turns, size_t pictures,
                                        const std::optional<std::string>& system);

}  // namespace vlm
