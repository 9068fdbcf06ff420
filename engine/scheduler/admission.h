// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <cstdint>

namespace vlm {

/// What a request takes, or what there is to take, of the executor's fixed tensors.
struct Share {
  int64_t rows = 0;   ///< sequences in one step
  int64_t slots = 0;  ///< tokens in the cache

  bool operator==(const Share&) const = default;
};

/// The most that a request can come to need: reserved whole before it starts, so that nothing runs
/// out midway. Beams share the prompt's slots.
constexpr Share worst_case(int64_t prompt_tokens, int64_t num_beams, int64_t max_new_tokens) {
  return {num_beams, prompt_tokens + num_beams * max_new_tokens};
}

constexpr bool fits(const Share& capacity, const Share& used, const Share& need) {
  return used.rows + need.rows <= capacity.rows && used.slots + need.slots <= capacity.slots;
}

/// Tokens of prompts that one step takes in. Beside texts under way that is a chunk, so that these
/// need not wait long for their next token; where there are none, as many whole prompts as together
/// stay within one context, which bounds the memory of a step's activations.
class PromptRoom {
 public:
  PromptRoom(bool beside_text, int64_t chunk, int64_t context)
      : all_(beside_text ? chunk : context), left_(all_) {}

  /// Whether a prompt of so many tokens may start: only one that needs all there is may be cut.
  bool starts(int64_t prompt_tokens) const { return left_ >= std::min(prompt_tokens, all_); }
  /// How many of a prompt's remaining tokens the step takes.
  int64_t take(int64_t remaining) {
    const int64_t taken = std::min(remaining, left_);
    left_ -= taken;
    return taken;
  }
  /// For a prompt that must not be cut: takes all of it.
  int64_t take_whole(int64_t remaining) {
    left_ = std::max<int64_t>(0, left_ - remaining);
    return remaining;
  }

 private:
  int64_t all_;
  int64_t left_;
};

}  // namespace vlm
