// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/stop.h"

#include <algorithm>
#include <utility>

#include "sampler/repetition.h"

namespace vlm {

StopStrings::StopStrings(const Tokenizer& tokenizer, std::vector<std::string> strings)
    : tokenizer_(&tokenizer), strings_(std::move(strings)) {
  for (const std::string& text : strings_) {
    longest_ = std::max(longest_, text.size());
  }
}

bool StopStrings::completed_by(std::span<const int64_t> prompt, std::span<const int64_t> generated,
                               int64_t token) const {
  if (strings_.empty()) {
    return false;
  }
  const std::string last = tokenizer_->token_text(token);
  if (last.empty()) {
    return false;
  }
  // The reference looks at no more tokens than the longest string has bytes.
  std::vector<std::string> earlier;
  size_t bytes = 0;
  const size_t past = prompt.size() + generated.size();
  for (size_t back = 1; back <= past && back < longest_ && bytes + 1 < longest_; ++back) {
    const size_t at = past - back;
    const int64_t id = at < prompt.size() ? prompt[at] : generated[at - prompt.size()];
    if (id >= tokenizer_->vocab_size()) {
      break;
    }
    earlier.push_back(tokenizer_->token_text(id));
    bytes += earlier.back().size();
  }
  std::string text;
  text.reserve(bytes + last.size());
  for (auto piece = earlier.rbegin(); piece != earlier.rend(); ++piece) {
    text += *piece;
  }
  text += last;
  return std::any_of(strings_.begin(), strings_.end(), [&](const std::string& stop) {
    // Found where it ends inside the last token: not before its first byte.
    const size_t from = bytes + 1 > stop.size() ? bytes + 1 - stop.size() : 0;
    return text.find(stop, from) != std::string::npos;
  });
}

bool StopRules::is_eos(int64_t token) const {
  return std::find(eos_ids.begin(), eos_ids.end(), token) != eos_ids.end();
}

std::optional<FinishReason> StopRules::after(std::span<const int64_t> prompt,
                                             std::span<const int64_t> generated,
                                             int64_t token) const {
  if (is_eos(token)) {
    return FinishReason::kStop;
  }
  if (strings.completed_by(prompt, generated, token)) {
    return FinishReason::kStopString;
  }
  if (repetition_guard > 0) {
    std::vector<int64_t> ids(generated.begin(), generated.end());
    ids.push_back(token);
    if (find_loop(ids, repetition_guard).period > 0) {
      return FinishReason::kRepetition;
    }
  }
  if (static_cast<int64_t>(generated.size()) + 1 >= max_new_tokens) {
    return FinishReason::kLength;
  }
  return std::nullopt;
}

}  // namespace vlm
