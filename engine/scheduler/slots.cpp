// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/slots.h"

#include <utility>

#include "base/failure.h"

namespace vlm {

SlotPool::SlotPool(int64_t slots) : uses_(static_cast<size_t>(slots), 0) {
  free_.reserve(uses_.size());
  for (int64_t slot = slots; slot-- > 0;) {
    free_.push_back(static_cast<int32_t>(slot));
  }
}

int32_t SlotPool::take() {
  if (free_.empty()) {
    throw Failure(ErrorKind::kInternal, "the cache has no free slot although one was reserved");
  }
  const int32_t slot = free_.back();
  free_.pop_back();
  uses_[static_cast<size_t>(slot)] = 1;
  return slot;
}

void SlotPool::release(int32_t slot) {
  if (--uses_[static_cast<size_t>(slot)] == 0) {
    free_.push_back(slot);
  }
}

SequenceSlots::SequenceSlots(SlotPool& pool, int64_t prompt_tokens) : pool_(pool) {
  prompt_.reserve(static_cast<size_t>(prompt_tokens));
  for (int64_t i = 0; i < prompt_tokens; ++i) {
    prompt_.push_back(pool_.take());
  }
  tables_.push_back(prompt_);
}

SequenceSlots::~SequenceSlots() {
  release_generated();
  for (const int32_t slot : prompt_) {
    pool_.release(slot);
  }
  if (upcoming_) {
    pool_.release(*upcoming_);
  }
}

void SequenceSlots::release_generated() {
  for (const SlotTable& table : tables_) {
    for (size_t i = prompt_.size(); i < table.size(); ++i) {
      pool_.release(table[i]);
    }
  }
}

int32_t SequenceSlots::upcoming() {
  if (!upcoming_) {
    upcoming_ = pool_.take();
  }
  return *upcoming_;
}

void SequenceSlots::advance(std::span<const int64_t> parents) {
  const bool unchanged = parents.size() == 1 && tables_.size() == 1;
  if (!unchanged) {
    std::vector<SlotTable> next;
    next.reserve(parents.size());
    for (const int64_t parent : parents) {
      const SlotTable& table = tables_[static_cast<size_t>(parent)];
      for (size_t i = prompt_.size(); i < table.size(); ++i) {
        pool_.retain(table[i]);
      }
      next.push_back(table);
    }
    release_generated();
    tables_ = std::move(next);
  }
  for (SlotTable& table : tables_) {
    table.push_back(upcoming_ ? *std::exchange(upcoming_, std::nullopt) : pool_.take());
  }
}

}  // namespace vlm
