// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmdispatch.h"

#include <algorithm>

namespace gstvlm {

struct Dispatcher::Slot {
  enum class Phase { kWaiting, kWithEngine, kDone, kEvent };
  uint64_t token = 0;  // never used twice
  Phase phase = Phase::kWaiting;
  Job job;
  EventPtr event;
  bool closed = false;  // times are final
  bool taken = false;   // the engine has it, or take() gave it out
  std::optional<vlm::RequestId> request;
  std::string text;
  bool text_is_new = false;
  std::optional<vlm::Result<vlm::Description>> result;
  int64_t done_us = 0;
};

// Guards nothing but the fields here: no call to the engine, to GStreamer or to a callback happens
// while `mutex` is held.
struct Dispatcher::Core {
  mutable Mutex mutex;
  // Each has one thread that waits, so that none is woken for what is another's.
  CondVar work;    // take(): something may have become due for the engine
  CondVar output;  // next(): something may be ready to be delivered
  CondVar room;    // the streaming thread: there may be an engine, or fewer windows on their way
  std::deque<Slot> slots GSTVLM_GUARDED_BY(mutex);
  bool stopped GSTVLM_GUARDED_BY(mutex) = true;
  bool flushing GSTVLM_GUARDED_BY(mutex) = false;
  bool failed GSTVLM_GUARDED_BY(mutex) = false;
  bool delivering GSTVLM_GUARDED_BY(mutex) = false;
  bool poked GSTVLM_GUARDED_BY(mutex) = false;
  uint64_t epoch GSTVLM_GUARDED_BY(mutex) = 0;
  uint64_t next_token GSTVLM_GUARDED_BY(mutex) = 1;
  uint64_t windows GSTVLM_GUARDED_BY(mutex) = 0;
  uint64_t passed_over GSTVLM_GUARDED_BY(mutex) = 0;
  // Emptied with the dispatcher, so that no callback can be the engine's last owner.
  std::shared_ptr<vlm::Engine> engine GSTVLM_GUARDED_BY(mutex);

  Slot* find(uint64_t token) GSTVLM_REQUIRES(mutex) {
    const auto slot = std::find_if(slots.begin(), slots.end(),
                                   [token](const Slot& s) { return s.token == token; });
    return slot == slots.end() ? nullptr : &*slot;
  }

  size_t count(Slot::Phase phase) const GSTVLM_REQUIRES(mutex) {
    return static_cast<size_t>(std::count_if(slots.begin(), slots.end(), [phase](const Slot& s) {
      return s.phase == phase && !s.job.window.extra;
    }));
  }

  size_t unfinished() const GSTVLM_REQUIRES(mutex) {
    return count(Slot::Phase::kWaiting) + count(Slot::Phase::kWithEngine);
  }

  // Windows on their way until they are delivered: whoever is slow to take results holds up more.
  size_t pending() const GSTVLM_REQUIRES(mutex) { return unfinished() + count(Slot::Phase::kDone); }

  void notify_everyone() {
    work.notify_all();
    output.notify_all();
    room.notify_all();
  }

  std::optional<Offer> refusal() const GSTVLM_REQUIRES(mutex) {
    if (stopped || flushing) {
      return Offer::kFlushing;
    }
    return failed ? std::optional(Offer::kFailed) : std::nullopt;
  }

  void push(Job job, Slot::Phase phase, bool closed) GSTVLM_REQUIRES(mutex) {
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

  void put(EventPtr event) GSTVLM_REQUIRES(mutex) {
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

  Offer add(Job job, Slot::Phase phase, bool closed) GSTVLM_REQUIRES(mutex) {
    if (const auto refused = refusal()) {
      return *refused;
    }
    push(std::move(job), phase, closed);
    return Offer::kAccepted;
  }

  bool extra_is_with_engine() const GSTVLM_REQUIRES(mutex) {
    return std::any_of(slots.begin(), slots.end(), [](const Slot& s) {
      return s.job.window.extra && s.phase == Slot::Phase::kWithEngine;
    });
  }

  // The first window that the engine is to have, or the one that waits where it has become free.
  Slot* next_to_take() GSTVLM_REQUIRES(mutex) {
    if (engine == nullptr) {
      return nullptr;
    }
    const bool free = count(Slot::Phase::kWithEngine) == 0;
    const bool free_for_extra = !extra_is_with_engine();
    const auto slot = std::find_if(slots.begin(), slots.end(), [&](const Slot& s) {
      return (s.phase == Slot::Phase::kWithEngine && !s.taken) ||
             (s.phase == Slot::Phase::kWaiting && (s.job.window.extra ? free_for_extra : free));
    });
    return slot == slots.end() ? nullptr : &*slot;
  }

  bool take_partial(Outcome& outcome) GSTVLM_REQUIRES(mutex) {
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

  // The first window or event where it is ready; descriptions besides the windows at any place.
  bool take_done(Outcome& outcome) GSTVLM_REQUIRES(mutex) {
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

  // Runs on the engine's thread.
  void finish(uint64_t token, vlm::Result<vlm::Description> result) GSTVLM_EXCLUDES(mutex) {
    const Lock lock(mutex);
    if (Slot* slot = find(token)) {
      slot->phase = Slot::Phase::kDone;
      slot->result = std::move(result);
      slot->done_us = monotonic_us();
      work.notify_all();  // for the one that waited until the engine is free
      output.notify_all();
    }
  }

  void grow(uint64_t token, const std::string& text) GSTVLM_EXCLUDES(mutex) {
    const Lock lock(mutex);
    Slot* slot = find(token);
    if (slot != nullptr && slot->phase == Slot::Phase::kWithEngine) {
      slot->text = text;
      slot->text_is_new = true;
      output.notify_all();
    }
  }
};

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

std::vector<uint64_t> Dispatcher::drop_all(Core& core)
    GSTVLM_THREAD(requires_capability(core.mutex)) {
  std::vector<uint64_t> requests;
  for (const Slot& slot : core.slots) {
    if (slot.phase == Slot::Phase::kWithEngine && slot.request) {
      requests.push_back(*slot.request);
    }
    if (slot.phase != Slot::Phase::kEvent && !slot.job.window.extra) {
      ++core.passed_over;
    }
  }
  core.slots.clear();
  ++core.epoch;
  core.notify_everyone();
  return requests;
}

// Sets `state`, if any, in the same moment. The engine is told without any lock.
void Dispatcher::drop(bool Core::*state) {
  std::vector<uint64_t> requests;
  {
    const Lock lock(core_->mutex);
    if (state != nullptr) {
      (*core_).*state = true;
    }
    requests = drop_all(*core_);
  }
  if (const std::shared_ptr<vlm::Engine> held = engine()) {
    for (const uint64_t request : requests) {
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
