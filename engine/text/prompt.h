// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
/// and hf. `model_name`: for automatic choice by name in the original layout. Errors: unknown
/// format, a chat template that is none of the known ones, no user turn, a number of `<image>` that
/// is neither 0 nor `pictures`, an empty prompt.
Result<std::string> format_prompt(const Prompt& prompt, size_t pictures,
                                  const std::optional<std::string>& chat_template);

/// Tokenises the text, with `tokens_per_image[i]` ids `image_token_id` in place of the i-th
/// `<image>`.
Result<PromptIds> tokenize_prompt(const Tokenizer& tokenizer, const std::string& text,
                                  int64_t image_token_id,
                                  const std::vector<int64_t>& tokens_per_image);

}  // namespace vlm
