// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "executor.h"
#include "scheduler/admission.h"
#include "scheduler/policy.h"
#include "scheduler/request.h"
#include "scheduler/slots.h"
#include "text/tokenizer.h"

namespace vlm {

/// What the engine thread has in hand: requests that wait for room and requests that run, one step
/// of the model at a time. Each request that comes in gets its `done` exactly once, whatever fails.
/// Thread-bound.
class Batch {
 public:
  /// Both must outlive it.
  Batch(Executor& executor, const Tokenizer& tokenizer);

  /// Takes a prepared request, or ends it at once where it cannot run.
  void add(std::unique_ptr<Job> job);
  /// Ends a request; unknown ids are ignored.
  void cancel(RequestId id);
  /// Starts who fits, encodes their pictures together, runs one step for all. Long prompts are
  /// processed in parts, one in each step.
  void step();
  bool idle() const { return waiting_.empty() && running_.empty(); }
  /// Cancels everything.
  void close();

  /// Set once the device is lost: everything fails with it from then on.
  const std::optional<Error>& fatal() const { return fatal_; }
  /// What the pictures of those who wait take.
  int64_t waiting_bytes() const { return waiting_bytes_; }
  /// Free slots of the cache, for tests.
  int64_t free_slots() const { return pool_.free_slots(); }

 private:
  using Jobs = std::span<Job* const>;

  std::optional<Error> cannot_run(const Job& job) const;
  bool trace_taken(const std::string& path) const;
  PromptRoom prompt_room() const;
  /// One of those who wait, who does so no longer; null where there is none of that id.
  std::unique_ptr<Job> take_waiting(RequestId id);
  /// Those who start.
  std::vector<Job*> start_waiting(PromptRoom& room);
  void encode(Jobs jobs);
  /// A step of those who have their text under way, between two pieces of the others' pictures.
  void step_between();
  Result<StepResult> attempt(Jobs jobs);
  void settle(Jobs jobs, const StepResult& result, Clock::time_point start);
  std::vector<Job*> in_text() const;
  void run(Jobs jobs);
  void advance(Job& job, const Chosen& chosen, Clock::time_point step_start, Clock::time_point now);
  void finish(Job& job);
  void fail(Job& job, const Error& error);
  /// Fails `jobs`, or everything where the error says that the device is lost.
  void fail_all(Jobs jobs, const Error& error);
  void forget_ended();

  Executor& executor_;
  const Tokenizer& tokenizer_;
  SlotPool pool_;
  FairQueue order_;
  std::unordered_map<RequestId, std::unique_ptr<Job>> waiting_;
  int64_t waiting_bytes_ = 0;
  std::vector<std::unique_ptr<Job>> running_;
  Share used_;
  std::optional<Error> fatal_;
};

}  // namespace vlm
