// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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
  std::vector<int64_t> image_offsets;  ///< position in `ids` of each picture's first token,
                                       ///< ascending; pictures that were cut off have none
};

/// What the original layout does with prompts.
struct OriginalPrompts {
  std::string model_name;  ///< last part of its path, which chooses the format that `auto` means
  bool start_end = false;  ///< <im_start> and <im_end> stand around each picture
  int64_t max_tokens =
      0;  ///< of a prompt with pictures, what is behind them is cut off; 0: none is
};

/// The format that `auto` means for a model of the original layout (LLaVA serve/cli.py). Reentrant.
std::string format_for_model(std::string_view model_name);

/// Knows the formats by name.
const std::vector<std::string>& prompt_format_names();

/// The final text for `pictures` pictures. `chat_template`: the checkpoint's own, for formats auto
/// and hf; where it has none, they are the published one of LLaVA-1.5. `original`: set in the
/// original layout, where auto goes by the model's name. Errors: unknown format, a chat template
/// that can't be applied, no user turn, a number of `<image>` that is neither 0 nor `pictures`, an
/// empty prompt.
Result<std::string> format_prompt(const Prompt& prompt, size_t pictures,
                                  const std::optional<ChatTemplate>& chat_template,
                                  const OriginalPrompts* original = nullptr);

/// Tokenises the text, with `tokens_per_image[i]` ids `image_token_id` in place of the i-th
/// `<image>`. `from_template`: where the text starts with BOS already, none is added, as the
/// reference does it for what its templates print.
Result<PromptIds> tokenize_prompt(const Tokenizer& tokenizer, const std::string& text,
                                  int64_t image_token_id,
                                  const std::vector<int64_t>& tokens_per_image,
                                  bool from_template = false);

/// The same as the original does it: the text between pictures is tokenised piece by piece, and
/// what exceeds `original.max_tokens` is cut off (LLaVA mm_utils.py, llava_arch.py).
Result<PromptIds> tokenize_pieces(const Tokenizer& tokenizer, const std::string& text,
                                  int64_t image_token_id,
                                  const std::vector<int64_t>& tokens_per_image,
                                  const OriginalPrompts& original);

}  // namespace vlm
