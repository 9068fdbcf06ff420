// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/look_ahead.h"

namespace vlm {

std::optional<std::vector<int32_t>> slots_ahead(std::span<const DecodePart> decodes,
                                                std::span<const Choice> choices,
                                                std::span<const int64_t> rows, int64_t count) {
  std::vector<int32_t> slots(static_cast<size_t>(count), -1);
  bool anybody = false;
  for (size_t i = 0; i < decodes.size(); ++i) {
    if (choices[i].last) {
      continue;
    }
    if (!choices[i].next_alike || decodes[i].upcoming < 0) {
      return std::nullopt;
    }
    slots[static_cast<size_t>(rows[i])] = decodes[i].upcoming;
    anybody = true;
  }
  return anybody ? std::optional(slots) : std::nullopt;
}

std::optional<std::vector<int64_t>> rows_ahead(std::span<const int32_t> slots,
                                               std::span<const DecodePart> decodes) {
  std::vector<int64_t> rows;
  size_t row = 0;
  for (const DecodePart& part : decodes) {
    while (row < slots.size() && slots[row] != part.slots->back()) {
      ++row;
    }
    if (row == slots.size()) {
      return std::nullopt;
    }
    rows.push_back(static_cast<int64_t>(row++));
  }
  return rows;
}

}  // namespace vlm
