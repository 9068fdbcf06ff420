// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmqueue.h"

#include <algorithm>

namespace gstvlm {

Dispatcher::Slot* Dispatcher::Core::find(uint64_t token) {
  const auto slot =
      std::find_if(slots.begin(), slots.end(), [token](const Slot& s) { return s.token == token; });
  return slot == slots.end() ? nullptr : &*slot;
}

size_t Dispatcher::Core::count(Slot::Phase phase) const {
  return static_cast<size_t>(std::count_if(slots.begin(), slots.end(), [phase](const Slot& s) {
    return s.phase == phase && !s.job.window.extra;
  }));
}

std::optional<Offer> Dispatcher::Core::refusal() const {
  if (stopped || flushing) {
    return Offer::kFlushing;
  }
  return failed ? std::optional(Offer::kFailed) : std::nullopt;
}

void Dispatcher::Core::push(Job job, Slot::Phase phase, bool closed) {
  Slot slot;
  slot.token = next_token++;
  slot.phase = phase;
  slot.job = std::move(job);
  slot.closed = closed;
  slot.job.window.index = windows;
  if (!slot.job.window.extra) {
    ++windows;
    slot.job.request.sequence = slot.job.window.index;
  }
  slots.push_back(std::move(slot));
  work.notify_all();
}

Offer Dispatcher::Core::add(Job job, Slot::Phase phase, bool closed) {
  if (const auto refused = refusal()) {
    return *refused;
  }
  push(std::move(job), phase, closed);
  return Offer::kAccepted;
}

void Dispatcher::Core::put(EventPtr event) {
  if (stopped || flushing) {
    return;
  }
  Slot slot;
  slot.token = next_token++;
  slot.phase = Slot::Phase::kEvent;
  slot.event = std::move(event);
  slots.push_back(std::move(slot));
  output.notify_all();
}

std::vector<vlm::RequestId> Dispatcher::Core::drop_all() {
  std::vector<vlm::RequestId> requests;
  for (const Slot& slot : slots) {
    if (slot.phase == Slot::Phase::kWithEngine && slot.request) {
      requests.push_back(*slot.request);
    }
    if (slot.phase != Slot::Phase::kEvent && !slot.job.window.extra) {
      ++passed_over;
    }
  }
  slots.clear();
  ++epoch;
  notify_everyone();
  return requests;
}

Dispatcher::Slot* Dispatcher::Core::next_to_take() {
  if (engine == nullptr) {
    return nullptr;
  }
  const bool free = count(Slot::Phase::kWithEngine) == 0;
  const bool free_for_extra = std::none_of(slots.begin(), slots.end(), [](const Slot& s) {
    return s.job.window.extra && s.phase == Slot::Phase::kWithEngine;
  });
  const auto slot = std::find_if(slots.begin(), slots.end(), [&](const Slot& s) {
    return (s.phase == Slot::Phase::kWithEngine && !s.taken) ||
           (s.phase == Slot::Phase::kWaiting && (s.job.window.extra ? free_for_extra : free));
  });
  return slot == slots.end() ? nullptr : &*slot;
}

bool Dispatcher::Core::take_partial(Outcome& outcome) {
  for (Slot& slot : slots) {
    if (slot.text_is_new && slot.phase == Slot::Phase::kWithEngine) {
      slot.text_is_new = false;
      outcome.kind = Outcome::Kind::kPartial;
      outcome.window = slot.job.window;
      outcome.text = slot.text;
      return true;
    }
  }
  return false;
}

bool Dispatcher::Core::take_done(Outcome& outcome) {
  bool front = true;
  for (auto slot = slots.begin(); slot != slots.end(); ++slot) {
    const bool extra = slot->job.window.extra;
    if ((front || extra) && slot->phase == Slot::Phase::kEvent) {
      outcome.kind = Outcome::Kind::kEvent;
      outcome.event = std::move(slot->event);
      slots.erase(slot);
      return true;
    }
    if ((front || extra) && slot->phase == Slot::Phase::kDone && slot->closed) {
      outcome.kind = Outcome::Kind::kResult;
      outcome.window = std::move(slot->job.window);
      outcome.result = std::move(*slot->result);
      outcome.latency_ns =
          static_cast<uint64_t>(slot->done_us - slot->job.arrival_us) * GST_USECOND;
      slots.erase(slot);
      return true;
    }
    front = front && extra;
  }
  return false;
}

void Dispatcher::Core::finish(uint64_t token, vlm::Result<vlm::Description> result) {
  const Lock lock(mutex);
  if (Slot* slot = find(token)) {
    slot->phase = Slot::Phase::kDone;
    slot->result = std::move(result);
    slot->done_us = monotonic_us();
    work.notify_all();  // for the one that waited until the engine is free
    output.notify_all();
  }
}

void Dispatcher::Core::grow(uint64_t token, const std::string& text) {
  const Lock lock(mutex);
  Slot* slot = find(token);
  if (slot != nullptr && slot->phase == Slot::Phase::kWithEngine) {
    slot->text = text;
    slot->text_is_new = true;
    output.notify_all();
  }
}

}  // namespace gstvlm
