// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "vlm/error.h"
#include "vlm/types.h"

namespace vlm {

/// A prompt ready for the decoder.
struct PromptIds {
  std::string text;          ///< final text, `<image>` once for each picture
  std::vector<int64_t> ids;  ///< BOS included, the image id repeated for every image token
  std::vector<int64_t>
      image_offsets;  ///< position in `ids` of each picture's first token, ascending
};

/// Knows the formats by name.
const std::vector<std::string>& prompt_format_names();

/// The final text for `pictures` pictures. `chat_template`: the checkpoint's own, for formats auto
/// and hf; where it has none, they are the published one of LLaVA-1.5. Errors: unknown format, a
/// chat template that can't be applied, no user turn, a number of `<image>` that is neither 0 nor
/// `pictures`, an empty prompt.
Result<std::string> format_prompt(const Prompt& prompt, size_t pictures,
                                  const std::optional<ChatTemplate>& chat_template);

/// Tokenises the text, with `tokens_per_image[i]` ids `image_token_id` in place of the i-th
/// `<image>`. `from_template`: where the text starts with BOS already, none is added, as the
/// reference does it for what its templates print.
Result<PromptIds> tokenize_prompt(const Tokenizer& tokenizer, const std::string& text,
                                  int64_t image_token_id,
                                  const std::vector<int64_t>& tokens_per_image,
                                  bool from_template = false);

}  // namespace vlm
