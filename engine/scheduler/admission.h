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

/// Tokens of prompts that one step takes in: as many whole prompts as a chunk holds. A longer one
/// is taken alone, and only as far as a chunk goes beside texts under way, so that these need not
/// wait long for their next token; where there are none, as far as a part goes. More in one step
/// would bring the last of them no sooner, and keep the first waiting.
class PromptRoom {
 public:
  /// `part`: chunk at least.
  PromptRoom(bool beside_text, int64_t chunk, int64_t part)
      : chunk_(chunk), longest_(beside_text ? chunk : part) {}

  /// Whether a prompt of so many tokens may start: only the first one may be cut.
  bool starts(int64_t prompt_tokens) const {
    return taken_ == 0 || taken_ + prompt_tokens <= chunk_;
  }
  /// How many of a prompt's remaining tokens the step takes.
  int64_t take(int64_t remaining) {
    const int64_t room = taken_ == 0 ? longest_ : std::max<int64_t>(0, chunk_ - taken_);
    const int64_t taken = std::min(remaining, room);
    taken_ += taken;
    return taken;
  }
  /// For a prompt that must not be cut: takes all of it.
  int64_t take_whole(int64_t remaining) {
    taken_ += remaining;
    return remaining;
  }

 private:
  int64_t chunk_;
  int64_t longest_;
  int64_t taken_ = 0;
};

}  // namespace vlm
