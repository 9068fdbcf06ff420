// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmsampler.h"

#define GST_CAT_DEFAULT gst_vlm_debug

#include <algorithm>

namespace gstvlm {
namespace {

uint64_t known_or_zero(uint64_t time) {
  return time == kNoTime ? 0 : time;
}

// Elements take turns at a shared engine.
uint64_t stream_id(GstElement* element) {
  return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(element));
}

}  // namespace

GstFlowReturn flow_of(Offer offer) {
  switch (offer) {
    case Offer::kFlushing:
      return GST_FLOW_FLUSHING;
    case Offer::kFailed:
      return GST_FLOW_ERROR;
    case Offer::kAccepted:
    case Offer::kPassedOver:
      break;
  }
  return GST_FLOW_OK;
}

GstFlowReturn Sampler::frame(GstBuffer* buffer, const Moment& moment) {
  const Settings::Streaming streaming = shared_.streaming();
  picker_.set_rule(
      {streaming.window_ns(), streaming.interval_ns == 0 ? 1 : streaming.frames, shared_.live});
  frame_serial_ = kNoTime;
  Candidate current{std::make_shared<Picture>(buffer, look_), moment};
  const bool when_free = streaming.interval_ns == 0 && shared_.live;
  if (!when_free || (shared_.dispatcher.ready() && shared_.dispatcher.idle())) {
    Steps steps;
    do {
      steps = picker_.frame(moment.time);
      const GstFlowReturn flow = run(steps, &current);
      if (flow != GST_FLOW_OK) {
        return flow;
      }
    } while (steps.more);
  }
  if (now_ && shared_.dispatcher.ready()) {
    now_ = false;
    if (const vlm::Status readable = current.picture->check(); !readable) {
      return refuse(readable.error());
    }
    offer_extra(current);
  }
  keep(std::move(current));
  return GST_FLOW_OK;
}

// A buffer that is kept may have to be copied by whoever writes into it downstream, so it is kept
// only while it may be needed.
void Sampler::keep(Candidate candidate) {
  const bool needed = picker_.needs_last();
  if (needed) {
    candidate.picture->keep_until_next();
  }
  const Lock lock(last_mutex_);
  last_.reset();
  if (needed) {
    last_ = std::move(candidate);
  }
}

Sampler::Candidate* Sampler::last() {
  const Lock lock(last_mutex_);
  return last_ ? &*last_ : nullptr;
}

GstFlowReturn Sampler::gap(uint64_t start_ns, uint64_t end_ns) {
  Steps steps;
  do {
    steps = picker_.gap(start_ns, end_ns);
    const GstFlowReturn flow = run(steps, nullptr);
    if (flow != GST_FLOW_OK) {
      return flow;
    }
  } while (steps.more);
  // What goes on through the gap; a window that ended at it has nothing of it.
  frame_serial_ = open_serial();
  return GST_FLOW_OK;
}

GstFlowReturn Sampler::finish() {
  GstFlowReturn flow = GST_FLOW_OK;
  Steps steps;
  do {
    steps = picker_.finish();
    flow = run(steps, nullptr);
  } while (steps.more && flow == GST_FLOW_OK);
  reset();
  return flow;
}

GstFlowReturn Sampler::interrupt() {
  now_ = false;
  if (open_serial() != kNoTime) {
    const uint64_t serial = open_serial();
    const Steps steps = picker_.interrupt();
    if (steps.list.empty()) {
      shared_.held.resolve(serial, nullptr);
    }
    const GstFlowReturn flow = run(steps, nullptr);
    if (flow != GST_FLOW_OK) {
      return flow;
    }
  }
  reset();
  return GST_FLOW_OK;
}

void Sampler::reset() {
  picker_.reset();
  open_ = Open();
  frame_serial_ = kNoTime;
  const Lock lock(last_mutex_);
  last_.reset();
}

void Sampler::give_back() {
  if (const Candidate* kept = last()) {
    kept->picture->give_back();
  }
}

void Sampler::release() {
  reset();
  copies_.clear();
}

void Sampler::describe_now() {
  std::optional<Candidate> newest;
  {
    const Lock lock(last_mutex_);
    newest = last_;
  }
  if (!newest || !shared_.dispatcher.ready()) {
    now_ = true;
    return;
  }
  if (const vlm::Status readable = newest->picture->check(); !readable) {
    post_warning(shared_.element, readable.error(), Stage::kWindow);
    return;
  }
  offer_extra(*newest);
}

GstFlowReturn Sampler::run(const Steps& steps, Candidate* current) {
  for (const Step& step : steps.list) {
    GstFlowReturn flow = GST_FLOW_OK;
    switch (step.kind) {
      case Step::Kind::kOpen:
        open_ = Open{step.serial, shared_.all_settings(), {}, false, false};
        break;
      case Step::Kind::kUseLast:
        flow = choose(last(), step.count);
        break;
      case Step::Kind::kUseThis:
        flow = choose(current, step.count);
        break;
      case Step::Kind::kSubmit:
        flow = submit(step);
        break;
      case Step::Kind::kClose:
        close(step);
        break;
      case Step::Kind::kPass:
        flow = pass_over(step);
        break;
    }
    if (flow != GST_FLOW_OK) {
      return flow;
    }
    if (current != nullptr) {
      frame_serial_ = step.serial;
    }
  }
  if (current != nullptr && steps.list.empty()) {
    frame_serial_ = open_serial();
  }
  return GST_FLOW_OK;
}

GstFlowReturn Sampler::choose(Candidate* candidate, unsigned count) {
  if (candidate == nullptr || open_.blind || open_.broken) {
    open_.broken = open_.broken || candidate == nullptr;
    return GST_FLOW_OK;
  }
  if (shared_.live) {
    open_.blind = !shared_.dispatcher.ready();
  } else if (const Offer offer = shared_.dispatcher.wait_engine(); offer != Offer::kAccepted) {
    return flow_of(offer);
  }
  if (open_.blind) {
    return GST_FLOW_OK;
  }
  vlm::Status good = has_room();
  if (good) {
    good = candidate->picture->check();
  }
  if (!good) {
    open_.broken = true;
    return refuse(good.error());
  }
  candidate->picture->keep(copies_);
  open_.chosen.insert(open_.chosen.end(), count, *candidate);
  return GST_FLOW_OK;
}

GstFlowReturn Sampler::submit(const Step& step) {
  if (open_.blind || open_.broken) {
    if (open_.broken) {
      shared_.stats.count_failed();
    }
    shared_.held.resolve(step.serial, nullptr);
    return flow_of(shared_.dispatcher.count_left_out(1, open_.broken));
  }
  Job job = make_job(open_.settings, std::move(open_.chosen), false);
  open_.chosen.clear();
  job.window.serial = step.serial;
  job.window.times = times(step.start_ns, step.end_ns);
  if (!shared_.live) {
    return flow_of(
        shared_.dispatcher.offer_recorded(std::move(job), shared_.streaming().max_pending));
  }
  job.instead = silence(job.window.times);
  const Offer offer = shared_.dispatcher.offer_live(std::move(job));
  open_.blind = offer == Offer::kPassedOver;
  return flow_of(offer);
}

void Sampler::close(const Step& step) {
  const Times final_times = times(step.start_ns, step.end_ns);
  shared_.dispatcher.close_window(step.serial, final_times);
  if (open_.blind || open_.broken) {
    if (EventPtr gap = silence(final_times)) {
      shared_.dispatcher.put_event(std::move(gap));
    }
  }
}

GstFlowReturn Sampler::pass_over(const Step& step) {
  if (EventPtr gap = silence(times(step.start_ns, step.end_ns))) {
    shared_.dispatcher.put_event(std::move(gap));
  }
  return flow_of(shared_.dispatcher.count_left_out(step.windows, false));
}

// What the text pad is to say of a window without a text, so that nobody behind it waits for one;
// null where its times are not the windows'.
EventPtr Sampler::silence(const Times& times) const {
  if (shared_.text_on_arrival || shared_.text.flow() == GST_FLOW_NOT_LINKED) {
    return nullptr;
  }
  return EventPtr(gst_event_new_gap(times.stream_time, times.stream_duration));
}

// The engine would find it out, but only when it has all pictures.
vlm::Status Sampler::has_room() const {
  const std::shared_ptr<vlm::Engine> engine = shared_.dispatcher.engine();
  const Settings::Streaming& streaming = open_.settings.streaming;
  if (engine == nullptr || streaming.window_ns() == 0) {
    return vlm::ok_status();
  }
  const vlm::ModelInfo& info = engine->info();
  const int64_t least = std::max<int64_t>(info.picture_tokens, 1) * streaming.frames;
  if (info.context_length == 0 || least < info.context_length) {
    return vlm::ok_status();
  }
  return vlm::Error{vlm::ErrorKind::kPromptTooLong,
                    "frames=" + std::to_string(streaming.frames) + " take at least " +
                        std::to_string(least) + " tokens, but the model's context has " +
                        std::to_string(info.context_length) + "; set fewer frames.",
                    {}};
}

// One window's frames cannot be read, or are too many.
GstFlowReturn Sampler::refuse(const vlm::Error& error) {
  if (shared_.all_settings().on_error == OnError::kSkip) {
    post_warning(shared_.element, error, Stage::kWindow);
    return GST_FLOW_OK;
  }
  post_error(shared_.element, error, Stage::kWindow);
  shared_.dispatcher.fail();
  return GST_FLOW_ERROR;
}

Job Sampler::make_job(const Settings& settings, std::vector<Candidate> chosen, bool extra) {
  Job job;
  job.window.prompt = settings.prompt;
  job.window.extra = extra;
  job.partial = settings.partial;
  job.request.prompt = settings.engine_prompt();
  job.request.options = settings.options;
  job.request.stream = stream_id(shared_.element);
  for (Candidate& candidate : chosen) {
    job.pictures.push_back(std::move(candidate.picture));
    job.window.frame_pts.push_back(candidate.moment.pts);
    job.window.utc_us = candidate.moment.utc_us;
    job.arrival_us = candidate.moment.arrival_us;
  }
  return job;
}

Offer Sampler::offer_extra(const Candidate& candidate) {
  const Moment& moment = candidate.moment;
  candidate.picture->keep(copies_);
  Job job = make_job(shared_.all_settings(), {candidate}, true);
  Times& times = job.window.times;
  times.pts = moment.pts;
  times.duration = known_or_zero(moment.duration);
  times.stream_time = moment.time.start_ns;
  times.stream_duration = known_or_zero(moment.time.duration_ns);
  times.running_time = moment.running_time;
  return shared_.dispatcher.offer_extra(std::move(job));
}

// The times of [start_ns, end_ns) in stream time, clipped to the segment.
Times Sampler::times(uint64_t start_ns, uint64_t end_ns) const {
  uint64_t low = gst_segment_to_stream_time(&segment_, GST_FORMAT_TIME, segment_.start);
  uint64_t high = GST_CLOCK_TIME_IS_VALID(segment_.stop)
                      ? gst_segment_to_stream_time(&segment_, GST_FORMAT_TIME, segment_.stop)
                      : kNoTime;
  if (segment_.applied_rate < 0) {
    std::swap(low, high);
  }
  low = low == kNoTime ? 0 : low;
  const uint64_t start = std::clamp(start_ns, low, std::max(low, high));
  const uint64_t end = std::clamp(end_ns, start, std::max(start, high));
  const auto position = [this](uint64_t stream_time) {
    const uint64_t pts =
        gst_segment_position_from_stream_time(&segment_, GST_FORMAT_TIME, stream_time);
    return pts == kNoTime ? stream_time : pts;
  };
  const uint64_t first = position(start);
  const uint64_t second = position(end);
  Times times;
  times.pts = std::min(first, second);
  times.duration = std::max(first, second) - times.pts;
  times.stream_time = start;
  times.stream_duration = end - start;
  times.running_time = gst_segment_to_running_time(&segment_, GST_FORMAT_TIME, times.pts);
  return times;
}

}  // namespace gstvlm
