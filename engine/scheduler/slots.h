// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "scheduler/step_plan.h"

namespace vlm {

/// Hands out the cache's slots and counts who uses each. Thread-bound.
class SlotPool {
 public:
  explicit SlotPool(int64_t slots);

  /// A free slot, used once. Failure where there is none: admission reserves enough.
  int32_t take();
  void retain(int32_t slot) { ++uses_[static_cast<size_t>(slot)]; }
  void release(int32_t slot);
  int64_t free_slots() const { return static_cast<int64_t>(free_.size()); }

 private:
  std::vector<int32_t> free_;  ///< lowest last
  std::vector<int32_t> uses_;
};

/// The slots of one request: one table at the prompt, one for each row later. Tables that share a
/// past share its slots. Gives everything back when destroyed. Thread-bound.
class SequenceSlots {
 public:
  SequenceSlots(SlotPool& pool, int64_t prompt_tokens);
  ~SequenceSlots();
  SequenceSlots(const SequenceSlots&) = delete;
  SequenceSlots& operator=(const SequenceSlots&) = delete;

  const std::vector<SlotTable>& tables() const { return tables_; }

  /// The slot that advance() will add, where there is one row that simply goes on; taken now.
  int32_t upcoming();

  /// Row i goes on from what was row parents[i], with one new slot at its end. Slots that no row
  /// uses any more become free.
  void advance(std::span<const int64_t> parents);

 private:
  void release_generated();

  SlotPool& pool_;
  SlotTable prompt_;
  std::vector<SlotTable> tables_;
  std::optional<int32_t> upcoming_;
};

}  // namespace vlm
