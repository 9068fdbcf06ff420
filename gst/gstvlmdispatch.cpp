// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmdispatch.h"

#include <algorithm>

#include "gstvlmqueue.h"

namespace gstvlm {

Dispatcher::Dispatcher() : core_(std::make_shared<Core>()) {}

Dispatcher::~Dispatcher() {
  stop();
  set_engine(nullptr);
}

void Dispatcher::reset() {
  const Lock lock(core_->mutex);
  core_->windows = 0;
  core_->passed_over = 0;
  core_->failed = false;
}

void Dispatcher::start() {
  const Lock lock(core_->mutex);
  core_->stopped = false;
  core_->flushing = false;
  core_->failed = core_->failed && core_->engine == nullptr;
}

// Sets `state`, if any, in the same moment. The engine is told without any lock.
void Dispatcher::drop(bool Core::*state) {
  std::vector<vlm::RequestId> requests;
  {
    const Lock lock(core_->mutex);
    if (state != nullptr) {
      (*core_).*state = true;
    }
    requests = core_->drop_all();
  }
  if (const std::shared_ptr<vlm::Engine> held = engine()) {
    for (const vlm::RequestId request : requests) {
      held->cancel(request);
    }
  }
}

void Dispatcher::stop() {
  drop(&Core::stopped);
}

void Dispatcher::flush() {
  drop(&Core::flushing);
}

void Dispatcher::fail() {
  drop(&Core::failed);
}

void Dispatcher::abandon() {
  drop(nullptr);
}

void Dispatcher::resume() {
  const Lock lock(core_->mutex);
  core_->flushing = false;
}

void Dispatcher::set_engine(std::shared_ptr<vlm::Engine> engine) {
  const Lock lock(core_->mutex);
  core_->engine.swap(engine);
  core_->notify_everyone();
  // The old engine, if any, goes with `engine`, after the lock is released.
}

std::shared_ptr<vlm::Engine> Dispatcher::engine() const {
  const Lock lock(core_->mutex);
  return core_->engine;
}

Offer Dispatcher::wait_engine() {
  const Lock lock(core_->mutex);
  while (true) {
    if (const auto refusal = core_->refusal()) {
      return *refusal;
    }
    if (core_->engine != nullptr) {
      return Offer::kAccepted;
    }
    core_->room.wait(core_->mutex);
  }
}

Offer Dispatcher::offer_recorded(Job job, unsigned max_pending) {
  const Lock lock(core_->mutex);
  while (!core_->refusal() &&
         (core_->engine == nullptr || core_->pending() >= std::max(max_pending, 1u))) {
    core_->room.wait(core_->mutex);
  }
  return core_->add(std::move(job), Slot::Phase::kWithEngine, false);
}

Offer Dispatcher::offer_extra(Job job) {
  const Lock lock(core_->mutex);
  if (core_->engine == nullptr) {
    return Offer::kPassedOver;
  }
  std::erase_if(core_->slots, [](const Slot& s) {
    return s.job.window.extra && s.phase == Slot::Phase::kWaiting;
  });
  return core_->add(std::move(job), Slot::Phase::kWaiting, true);
}

Offer Dispatcher::offer_live(Job job) {
  const Lock lock(core_->mutex);
  if (const auto refusal = core_->refusal()) {
    return *refusal;
  }
  if (core_->engine == nullptr) {
    ++core_->windows;
    ++core_->passed_over;
    return Offer::kPassedOver;
  }
  const bool busy = core_->unfinished() > 0;
  const auto waiting = std::find_if(core_->slots.begin(), core_->slots.end(), [](const Slot& s) {
    return s.phase == Slot::Phase::kWaiting && !s.job.window.extra;
  });
  if (waiting != core_->slots.end()) {
    waiting->phase = Slot::Phase::kEvent;
    waiting->event = std::move(waiting->job.instead);
    waiting->job = Job();
    if (waiting->event == nullptr) {
      core_->slots.erase(waiting);
    }
    ++core_->passed_over;
    core_->output.notify_all();  // for what was behind it
  }
  core_->push(std::move(job), busy ? Slot::Phase::kWaiting : Slot::Phase::kWithEngine, true);
  return Offer::kAccepted;
}

std::optional<Work> Dispatcher::take(std::optional<Clock::time_point> deadline) {
  const Lock lock(core_->mutex);
  while (!core_->stopped) {
    if (Slot* slot = core_->next_to_take()) {
      slot->phase = Slot::Phase::kWithEngine;
      slot->taken = true;
      return Work{slot->token, std::move(slot->job.request), std::move(slot->job.pictures)};
    }
    if (!core_->work.wait_until(core_->mutex, deadline)) {
      break;
    }
  }
  return std::nullopt;
}

void Dispatcher::fail_window(uint64_t token, vlm::Error error) {
  core_->finish(token, std::move(error));
}

// The engine is called without any lock.
void Dispatcher::submit(Work work) {
  vlm::Callbacks callbacks;
  std::shared_ptr<vlm::Engine> engine;
  const uint64_t token = work.token;
  {
    const Lock lock(core_->mutex);
    const Slot* slot = core_->find(token);
    if (slot == nullptr || core_->engine == nullptr) {
      return;
    }
    engine = core_->engine;
    // The callbacks own the core, the core does not own the callbacks.
    callbacks.done = [core = core_, token](vlm::Result<vlm::Description> result) {
      core->finish(token, std::move(result));
    };
    if (slot->job.partial) {
      callbacks.partial = [core = core_, token](const std::string& text) {
        core->grow(token, text);
      };
    }
  }
  vlm::Result<vlm::RequestId> id = engine->submit(std::move(work.request), std::move(callbacks));
  if (!id) {
    core_->finish(token, id.error());
    return;
  }
  bool dropped = false;
  {
    const Lock lock(core_->mutex);
    Slot* slot = core_->find(token);
    dropped = slot == nullptr;
    if (slot != nullptr) {
      slot->request = *id;
    }
  }
  if (dropped) {
    engine->cancel(*id);
  }
}

Offer Dispatcher::count_left_out(uint64_t windows, bool broken) {
  const Lock lock(core_->mutex);
  core_->windows += windows;
  core_->passed_over += broken ? 0 : windows;
  return core_->refusal().value_or(Offer::kAccepted);
}

void Dispatcher::count_stale() {
  const Lock lock(core_->mutex);
  ++core_->passed_over;
}

void Dispatcher::close_window(uint64_t serial, const Times& times) {
  const Lock lock(core_->mutex);
  for (Slot& slot : core_->slots) {
    if (slot.phase != Slot::Phase::kEvent && !slot.job.window.extra &&
        slot.job.window.serial == serial) {
      slot.job.window.times = times;
      slot.closed = true;
      if (slot.phase == Slot::Phase::kDone) {
        core_->output.notify_all();
      }
    }
  }
}

void Dispatcher::put_event(EventPtr event) {
  const Lock lock(core_->mutex);
  core_->put(std::move(event));
}

void Dispatcher::put_gap(uint64_t start, uint64_t duration) {
  const Lock lock(core_->mutex);
  if (!core_->slots.empty() && core_->slots.back().phase == Slot::Phase::kEvent) {
    GstEvent* last = core_->slots.back().event.get();
    if (EventPtr longer = prolonged_gap(last, start, duration)) {
      core_->slots.back().event = std::move(longer);
      return;
    }
  }
  core_->put(EventPtr(gst_event_new_gap(start, duration)));
}

Offer Dispatcher::drain(std::optional<Clock::time_point> deadline) {
  const Lock lock(core_->mutex);
  while (!core_->slots.empty() || core_->delivering) {
    if (const auto refusal = core_->refusal()) {
      return *refusal;
    }
    if (!core_->room.wait_until(core_->mutex, deadline)) {
      return Offer::kPassedOver;
    }
  }
  return core_->refusal().value_or(Offer::kAccepted);
}

Outcome Dispatcher::next(std::optional<Clock::time_point> deadline) {
  Outcome outcome;
  const Lock lock(core_->mutex);
  if (core_->delivering) {
    core_->delivering = false;
    core_->room.notify_all();
  }
  while (true) {
    outcome.epoch = core_->epoch;
    if (core_->stopped) {
      return outcome;
    }
    if (core_->take_partial(outcome) || core_->take_done(outcome)) {
      core_->delivering = true;
      return outcome;
    }
    if (core_->poked) {
      core_->poked = false;
      outcome.kind = Outcome::Kind::kTick;
      return outcome;
    }
    if (!core_->output.wait_until(core_->mutex, deadline)) {
      outcome.kind = Outcome::Kind::kTick;
      return outcome;
    }
  }
}

void Dispatcher::poke() {
  const Lock lock(core_->mutex);
  core_->poked = true;
  core_->output.notify_all();
}

bool Dispatcher::failed() const {
  const Lock lock(core_->mutex);
  return core_->failed;
}

Counts Dispatcher::counts() const {
  const Lock lock(core_->mutex);
  return {core_->windows, core_->passed_over, core_->unfinished()};
}

bool Dispatcher::idle() const {
  const Lock lock(core_->mutex);
  return core_->unfinished() == 0;
}

bool Dispatcher::ready() const {
  const Lock lock(core_->mutex);
  return core_->engine != nullptr;
}

uint64_t Dispatcher::epoch() const {
  const Lock lock(core_->mutex);
  return core_->epoch;
}

}  // namespace gstvlm
