// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace vlm {

/// The distinct values of `ids`, ascending. Reentrant.
std::vector<int64_t> distinct(std::span<const int64_t> ids);

/// `known` (ascending, distinct) with what `ids` adds to it. Reentrant.
std::vector<int64_t> distinct_with(const std::vector<int64_t>& known, std::span<const int64_t> ids);

/// Ids that would complete an n-gram of `size` tokens already in prompt + generated: what the
/// reference bans for no_repeat_ngram_size. Ascending, distinct. Reentrant.
std::vector<int64_t> repeated_ngram_ids(std::span<const int64_t> prompt,
                                        std::span<const int64_t> generated, int64_t size);

}  // namespace vlm
