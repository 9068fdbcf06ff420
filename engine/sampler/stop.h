// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"
#include "vlm/types.h"

namespace vlm {

/// Whether a token ends a text that one of the stop strings is part of, as the reference judges it:
/// the string may begin in any earlier token, the prompt's included, and end anywhere inside the
/// last one. Constant after construction; reentrant. The tokenizer must outlive it.
class StopStrings {
 public:
  StopStrings(const Tokenizer& tokenizer, std::vector<std::string> strings);

  bool completed_by(std::span<const int64_t> prompt, std::span<const int64_t> generated,
                    int64_t token) const;

 private:
  const Tokenizer* tokenizer_;
  std::vector<std::string> strings_;
  size_t longest_ = 0;  ///< bytes
};

/// When a request's text is complete: an end id, a stop string, a loop, or the length.
struct StopRules {
  std::vector<int64_t> eos_ids;
  StopStrings strings;
  int64_t max_new_tokens = 0;
  int64_t repetition_guard = 0;  ///< times that a cycle makes a loop; 0: loops go on

  bool is_eos(int64_t token) const;
  /// Why `token`, coming after `generated`, ends the text; nothing where it goes on.
  std::optional<FinishReason> after(std::span<const int64_t> prompt,
                                    std::span<const int64_t> generated, int64_t token) const;
};

}  // namespace vlm
