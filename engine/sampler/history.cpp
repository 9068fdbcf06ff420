// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/history.h"

#include <algorithm>

namespace vlm {

std::vector<int64_t> distinct(std::span<const int64_t> ids) {
  return distinct_with({}, ids);
}

std::vector<int64_t> distinct_with(const std::vector<int64_t>& known,
                                   std::span<const int64_t> ids) {
  std::vector<int64_t> all;
  all.reserve(known.size() + ids.size());
  all = known;
  all.insert(all.end(), ids.begin(), ids.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<int64_t> repeated_ngram_ids(std::span<const int64_t> prompt,
                                        std::span<const int64_t> generated, int64_t size) {
  const auto total = static_cast<int64_t>(prompt.size() + generated.size());
  const auto at = [&](int64_t i) {
    const auto index = static_cast<size_t>(i);
    return index < prompt.size() ? prompt[index] : generated[index - prompt.size()];
  };
  std::vector<int64_t> banned;
  for (int64_t start = 0; size > 0 && start + size <= total; ++start) {
    const int64_t suffix = total + 1 - size;
    bool same = true;
    for (int64_t i = 0; same && i + 1 < size; ++i) {
      same = at(start + i) == at(suffix + i);
    }
    if (same) {
      banned.push_back(at(start + size - 1));
    }
  }
  return distinct(banned);
}

}  // namespace vlm
