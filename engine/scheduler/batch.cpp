// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/batch.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/failure.h"
#include "base/guard.h"

namespace vlm {
namespace {

Error cancelled_error() {
  return {ErrorKind::kCancelled, "the request was cancelled before it had any text", {}};
}

template <typename T>
Error wrong_count(const char* what, size_t expected, const std::vector<T>& found) {
  return {ErrorKind::kInternal,
          std::string("the model gave ") + std::to_string(found.size()) + " " + what + " for " +
              std::to_string(expected) + " requests",
          {}};
}

}  // namespace

Batch::Batch(Executor& executor, const Tokenizer& tokenizer)
    : executor_(executor), tokenizer_(tokenizer), pool_(executor.limits().cache_slots) {}

std::optional<Error> Batch::cannot_run(const Job& job) const {
  if (fatal_) {
    return fatal_;
  }
  if (job.failure()) {
    return job.failure();
  }
  if (job.cancelled()) {
    return cancelled_error();
  }
  if (trace_taken(job.trace_path())) {
    return Error{ErrorKind::kInvalidArgument,
                 "another request in progress already writes the trace " + job.trace_path() +
                     "; give each its own file",
                 {}};
  }
  const ExecutorLimits& limits = executor_.limits();
  const Share need = job.need();
  if (need.rows > limits.max_rows) {
    return Error{ErrorKind::kInvalidArgument,
                 "num-beams is " + std::to_string(need.rows) + ", but this engine runs at most " +
                     std::to_string(limits.max_rows) + " sequences at once; use fewer beams",
                 {}};
  }
  if (need.slots > limits.cache_slots) {
    // What the model's context holds, the cache lacks only where memory did.
    const bool memory = need.slots <= executor_.info().context_length;
    return Error{memory ? ErrorKind::kOutOfMemory : ErrorKind::kInvalidArgument,
                 "prompt and answer take up to " + std::to_string(need.slots) +
                     " tokens of cache, but there is room for " +
                     std::to_string(limits.cache_slots) +
                     (memory ? " in the memory that was free when the model was loaded" : "") +
                     "; use fewer beams, fewer new tokens or a shorter prompt" +
                     (memory ? ", or free memory and load the model again" : ""),
                 {}};
  }
  return std::nullopt;
}

bool Batch::trace_taken(const std::string& path) const {
  const auto same = [&](const Job& job) { return job.trace_path() == path; };
  return !path.empty() && (std::any_of(running_.begin(), running_.end(),
                                       [&](const auto& job) { return same(*job); }) ||
                           std::any_of(waiting_.begin(), waiting_.end(),
                                       [&](const auto& entry) { return same(*entry.second); }));
}

void Batch::add(std::unique_ptr<Job> job) {
  if (const std::optional<Error> error = cannot_run(*job)) {
    job->fail(*error);
    return;
  }
  order_.push(job->stream(), job->id());
  const RequestId id = job->id();
  waiting_bytes_ += job->pixel_bytes();
  waiting_.emplace(id, std::move(job));
}

void Batch::cancel(RequestId id) {
  if (const std::unique_ptr<Job> job = take_waiting(id)) {
    order_.remove(id);
    job->fail(cancelled_error());
    return;
  }
  for (const std::unique_ptr<Job>& job : running_) {
    if (job->id() != id) {
      continue;
    }
    if (job->in_text()) {
      job->cut_off();
      finish(*job);
    } else {
      fail(*job, cancelled_error());
    }
    forget_ended();
    return;
  }
}

std::unique_ptr<Job> Batch::take_waiting(RequestId id) {
  auto node = waiting_.extract(id);
  if (node.empty()) return nullptr;
  waiting_bytes_ -= node.mapped()->pixel_bytes();
  return std::move(node.mapped());
}

void Batch::close() {
  while (!running_.empty()) {
    cancel(running_.back()->id());
  }
  while (!order_.empty()) {
    cancel(order_.front());
  }
}

PromptRoom Batch::prompt_room() const {
  return {!in_text().empty(), executor_.limits().prompt_chunk, executor_.limits().prompt_part};
}

std::vector<Job*> Batch::in_text() const {
  std::vector<Job*> jobs;
  for (const std::unique_ptr<Job>& job : running_) {
    if (job->in_text() && !job->ended()) jobs.push_back(job.get());
  }
  return jobs;
}

void Batch::step() {
  PromptRoom room = prompt_room();
  std::vector<Job*> jobs;
  for (const std::unique_ptr<Job>& job : running_) {
    if (job->in_text()) continue;
    if (const int64_t tokens = room.take(job->prompt_left()); tokens > 0) {
      job->take_prompt(tokens);
      jobs.push_back(job.get());
    }
  }
  const std::vector<Job*> started = start_waiting(room);
  encode(started);
  jobs.insert(jobs.end(), started.begin(), started.end());
  for (Job* job : in_text()) jobs.push_back(job);
  std::erase_if(jobs, [](const Job* job) { return job->ended(); });
  run(jobs);
  forget_ended();
}

std::vector<Job*> Batch::start_waiting(PromptRoom& room) {
  const Share capacity = {executor_.limits().max_rows, executor_.limits().cache_slots};
  const Clock::time_point now = Clock::now();
  std::vector<Job*> started;
  while (!order_.empty()) {
    const Job& next = *waiting_.at(order_.front());
    // Who does not fit keeps its turn, so a large request is never passed by small ones for ever.
    if (!fits(capacity, used_, next.need()) || !room.starts(next.prompt_tokens())) {
      break;
    }
    running_.push_back(take_waiting(order_.pop()));
    Job& job = *running_.back();
    used_.rows += job.need().rows;
    used_.slots += job.need().slots;
    const Status status = guarded([&] {
      job.start(pool_, tokenizer_, now);
      return ok_status();
    });
    if (status) {
      // What a trace holds is of whole prompts.
      const bool whole = !job.trace_path().empty();
      job.take_prompt(whole ? room.take_whole(job.prompt_left()) : room.take(job.prompt_left()));
      started.push_back(&job);
    } else {
      fail(job, status.error());
    }
  }
  return started;
}

void Batch::encode(Jobs jobs) {
  std::vector<Job*> owners;
  std::vector<const PixelTensor*> pixels;
  std::vector<std::string> traces;
  for (Job* job : jobs) {
    if (job->pixels() != nullptr && !job->ended()) {
      owners.push_back(job);
      pixels.push_back(job->pixels());
      traces.push_back(job->trace_path());
    }
  }
  if (owners.empty()) {
    return;
  }
  const Clock::time_point start = Clock::now();
  double others_ms = 0;
  const auto images = guarded([&]() -> Result<std::vector<std::shared_ptr<const ImageEmbeds>>> {
    auto encoded = executor_.encode(pixels, traces, [&] {
      const Clock::time_point between = Clock::now();
      step_between();
      others_ms += milliseconds(between, Clock::now());
    });
    if (encoded.size() != owners.size()) {
      return wrong_count("pictures", owners.size(), encoded);
    }
    return encoded;
  });
  if (images) {
    const double vision_ms = milliseconds(start, Clock::now()) - others_ms;
    for (size_t i = 0; i < owners.size(); ++i) {
      owners[i]->set_images((*images)[i], vision_ms);
    }
  } else if (images.error().kind == ErrorKind::kOutOfMemory && owners.size() > 1) {
    const size_t half = owners.size() / 2;
    encode(Jobs(owners).first(half));
    encode(Jobs(owners).subspan(half));
  } else {
    fail_all(owners, images.error());
  }
}

void Batch::step_between() {
  const std::vector<Job*> jobs = in_text();
  if (jobs.empty()) {
    return;
  }
  const Clock::time_point start = Clock::now();
  const Result<StepResult> result = attempt(jobs);
  if (result) {
    settle(jobs, *result, start);
  } else if (result.error().kind != ErrorKind::kOutOfMemory) {  // then they wait for the others
    fail_all(jobs, result.error());
  }
  // Nobody has any pixels then.
  if (fatal_) throw Failure(*fatal_);
}

Result<StepResult> Batch::attempt(Jobs jobs) {
  return guarded([&]() -> Result<StepResult> {
    StepPlan plan;
    for (Job* job : jobs) {
      job->add_to(plan, executor_.limits().looks_ahead);
    }
    StepResult step = executor_.run(plan);
    if (step.chosen.size() != plan.choices.size()) {
      return wrong_count("choices", plan.choices.size(), step.chosen);
    }
    return step;
  });
}

void Batch::run(Jobs jobs) {
  if (jobs.empty() || fatal_) {
    return;
  }
  const Clock::time_point start = Clock::now();
  const Result<StepResult> result = attempt(jobs);
  if (!result) {
    // Alone, each of them may fit. Repeating is safe: a step writes only slots that its plan names.
    if (result.error().kind == ErrorKind::kOutOfMemory && jobs.size() > 1) {
      run(jobs.first(jobs.size() / 2));
      run(jobs.subspan(jobs.size() / 2));
    } else {
      fail_all(jobs, result.error());
    }
    return;
  }
  settle(jobs, *result, start);
}

void Batch::settle(Jobs jobs, const StepResult& result, Clock::time_point start) {
  const Clock::time_point now = Clock::now();
  auto chosen = result.chosen.begin();
  for (Job* job : jobs) {
    if (job->chooses()) {
      advance(*job, *chosen++, start, now);
    } else {
      job->go_on(start);
    }
  }
}

void Batch::advance(Job& job, const Chosen& chosen, Clock::time_point step_start,
                    Clock::time_point now) {
  const Status status = guarded([&] {
    job.advance(chosen, step_start, now);
    return ok_status();
  });
  if (!status) {
    fail(job, status.error());
  } else if (job.finished()) {
    finish(job);
  }
}

void Batch::finish(Job& job) {
  Status traced = ok_status();
  if (!job.trace_path().empty()) {
    traced = guarded([&] { return executor_.write_trace(job.trace_path(), job.ids()); });
  }
  if (traced) {
    job.deliver(tokenizer_);
  } else {
    job.fail(traced.error());
  }
}

void Batch::fail(Job& job, const Error& error) {
  if (!job.trace_path().empty()) {
    shielded([&] { executor_.drop_trace(job.trace_path()); });
  }
  job.fail(error);
}

void Batch::fail_all(Jobs jobs, const Error& error) {
  if (error.kind != ErrorKind::kDevice) {
    for (Job* job : jobs) {
      fail(*job, error);
    }
    return;
  }
  fatal_ = error;
  for (const std::unique_ptr<Job>& job : running_) {
    if (!job->ended()) {
      job->fail(error);
    }
  }
  while (!order_.empty()) {
    take_waiting(order_.pop())->fail(error);
  }
}

void Batch::forget_ended() {
  std::erase_if(running_, [&](const std::unique_ptr<Job>& job) {
    if (job->ended()) {
      used_.rows -= job->need().rows;
      used_.slots -= job->need().slots;
    }
    return job->ended();
  });
}

}  // namespace vlm
