// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

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

}  // namespace vlm
