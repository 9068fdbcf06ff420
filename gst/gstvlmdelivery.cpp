// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmdelivery.h"

#include <algorithm>

#include "gstvlmdescription.h"

namespace gstvlm {
namespace {

// Shorter ones would fill the bus with what nobody can read.
constexpr uint64_t kShortestStatsPeriod = GST_MSECOND;

std::string name_of(GstElement* element) {
  const std::unique_ptr<gchar, Unref> name(gst_element_get_name(element));
  return name.get();
}

std::string model_name(const Dispatcher& dispatcher) {
  const std::shared_ptr<vlm::Engine> engine = dispatcher.engine();
  return engine == nullptr ? std::string() : engine->info().name;
}

// A lost device is not one window's affair. Want of memory is: what the window took is free again,
// and the engine lives on.
bool stops_everything(vlm::ErrorKind kind) {
  return kind == vlm::ErrorKind::kDevice;
}

}  // namespace

void Delivery::start() {
  join();
  thread_ = std::thread([this, turn = turn_.load()] {
    const bool ended = guarded(shared_.element, false, [this, turn] {
      run(turn);
      return true;
    });
    if (!ended) {
      shared_.dispatcher.fail();
      shared_.held.resolve_all();
    }
  });
}

void Delivery::join() {
  if (!thread_.joinable()) {
    return;
  }
  if (thread_.get_id() == std::this_thread::get_id()) {
    ++turn_;
    thread_.detach();
  } else {
    thread_.join();
  }
}

void Delivery::run(uint64_t turn) {
  Clock::time_point last_stats = Clock::now();
  while (true) {
    const uint64_t period = shared_.all_settings().stats_interval_ns;
    const auto deadline = period == 0
                              ? std::nullopt
                              : deadline_after(last_stats, std::max(period, kShortestStatsPeriod));
    Outcome outcome = shared_.dispatcher.next(deadline);
    if (outcome.kind == Outcome::Kind::kStopped) {
      return;
    }
    // Whoever hears of it may stop the element, and let go of it.
    const ElementPtr held(GST_ELEMENT_CAST(gst_object_ref(shared_.element)));
    if (outcome.kind != Outcome::Kind::kTick) {
      handle(std::move(outcome));
    }
    if (deadline && Clock::now() >= *deadline) {
      last_stats = Clock::now();
      GstStructure* stats = shared_.stats.snapshot(shared_.dispatcher.counts()).release();
      gst_element_post_message(shared_.element,
                               gst_message_new_element(GST_OBJECT(shared_.element), stats));
    }
    if (turn != turn_) {
      return;
    }
  }
}

void Delivery::handle(Outcome outcome) {
  if (stale(outcome)) {
    if (outcome.kind == Outcome::Kind::kResult && !outcome.window.extra) {
      shared_.dispatcher.count_stale();
    }
    return;
  }
  if (outcome.kind == Outcome::Kind::kEvent) {
    text_event(std::move(outcome.event));
  } else if (outcome.kind == Outcome::Kind::kPartial) {
    grown(outcome);
  } else if (outcome.result) {
    described(outcome);
  } else {
    failed(outcome);
  }
}

void Delivery::described(const Outcome& outcome) {
  const vlm::Description& description = *outcome.result;
  const Window& window = outcome.window;
  const StructurePtr structure = describe(window, description, outcome.latency_ns,
                                          model_name(shared_.dispatcher), name_of(shared_.element));
  if (!window.extra) {
    shared_.stats.count_described(description, outcome.latency_ns);
    shared_.held.resolve(window.serial, structure.get());
  }
  shared_.latest.set(copy_structure(structure.get()));
  if (stale(outcome)) {
    // A flush came in between, and may have cleared what has just been set.
    shared_.latest.clear();
    return;
  }
  bool details = false;
  {
    const ObjectLock lock(shared_.element);
    shared_.last_description = description.text;
    details = shared_.settings.details;
  }
  put_text(window, structure.get(), outcome.latency_ns);
  StructurePtr message = copy_structure(structure.get());
  if (details) {
    add_details(message.get(), description);
  }
  gst_element_post_message(shared_.element,
                           gst_message_new_element(GST_OBJECT(shared_.element), message.release()));
  g_object_notify(G_OBJECT(shared_.element), "last-description");
}

void Delivery::put_text(const Window& window, const GstStructure* structure, uint64_t latency_ns) {
  if (!shared_.text_on_arrival) {
    if (!window.extra) {
      shared_.text.put_text(structure, window.times.stream_time, window.times.stream_duration,
                            true);
    }
    return;
  }
  const uint64_t newest = shared_.newest_time;
  const uint64_t interval = shared_.streaming().interval_ns;
  // Without an interval the next text comes about as soon as this one did.
  const uint64_t shown = window.times.stream_duration;
  const uint64_t duration = interval != 0 ? shown : std::max(shown, latency_ns);
  shared_.text.put_text(structure, newest == kNoTime ? window.times.stream_time : newest, duration,
                        false);
}

void Delivery::put_silence(const Window& window) {
  if (!shared_.text_on_arrival && !window.extra) {
    shared_.text.put_gap(window.times.stream_time, window.times.stream_duration);
  }
}

void Delivery::failed(const Outcome& outcome) {
  const vlm::Error& error = outcome.result.error();
  if (!outcome.window.extra) {
    shared_.stats.count_failed();
  }
  const bool skip =
      shared_.all_settings().on_error == OnError::kSkip && !stops_everything(error.kind);
  if (skip) {
    if (!outcome.window.extra) {
      shared_.held.resolve(outcome.window.serial, nullptr);
      put_silence(outcome.window);
    }
    post_warning(shared_.element, error, Stage::kWindow);
    return;
  }
  post_error(shared_.element, error, Stage::kWindow);
  shared_.dispatcher.fail();
  shared_.held.resolve_all();
}

void Delivery::grown(const Outcome& outcome) {
  GstStructure* structure =
      describe_partial(outcome.window, outcome.text, model_name(shared_.dispatcher),
                       name_of(shared_.element))
          .release();
  gst_element_post_message(shared_.element,
                           gst_message_new_element(GST_OBJECT(shared_.element), structure));
}

void Delivery::text_event(EventPtr event) {
  switch (GST_EVENT_TYPE(event.get())) {
    case GST_EVENT_STREAM_START:
      shared_.text.put_stream(event.get());
      break;
    case GST_EVENT_SEGMENT:
      shared_.text.put_segment(std::move(event));
      break;
    case GST_EVENT_GAP: {
      GstClockTime start = 0;
      GstClockTime duration = 0;
      gst_event_parse_gap(event.get(), &start, &duration);
      shared_.text.put_gap(start, duration);
      break;
    }
    default:
      shared_.text.put_event(std::move(event));
  }
}

}  // namespace gstvlm
