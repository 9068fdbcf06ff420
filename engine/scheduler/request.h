// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "sampler/generation.h"
#include "scheduler/admission.h"
#include "scheduler/prepare.h"
#include "scheduler/settings.h"
#include "scheduler/slots.h"
#include "scheduler/step_plan.h"
#include "text/tokenizer.h"
#include "vlm/engine.h"

namespace vlm {

using Clock = std::chrono::steady_clock;

/// Milliseconds from `start` to `end`.
inline double milliseconds(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - start).count();
}

/// One accepted request on its way: submitted → prepared (ids, pixels) → started (slots, text) →
/// ended (callback called). One thread has it at a time: it is handed over whole.
class Job {
 public:
  Job(RequestId id, Request request, Callbacks callbacks, Settings settings);

  RequestId id() const { return id_; }
  uint64_t stream() const { return request_.stream; }
  const std::string& trace_path() const { return request_.trace_path; }
  bool cancelled() const { return cancelled_; }
  /// Marks one that the engine thread does not have yet.
  void mark_cancelled() { cancelled_ = true; }

  /// Makes ids and pixels. What fails is kept and told by failure().
  void prepare(Preparer& preparer, int64_t context_length);
  const std::optional<Error>& failure() const { return failure_; }

  // From here on: engine thread, after prepare() without failure.

  int64_t prompt_tokens() const { return prompt_tokens_; }
  Share need() const;
  /// Takes the prompt's slots. The next step has no token of it.
  void start(SlotPool& pool, const Tokenizer& tokenizer, Clock::time_point now);
  /// Whether the prompt is processed.
  bool in_text() const { return in_text_; }

  /// Pictures to encode before the first step; null where there are none.
  const PixelTensor* pixels() const;
  /// What they take, wherever they lie.
  int64_t pixel_bytes() const;
  void set_images(std::shared_ptr<const ImageEmbeds> images, double vision_ms);

  /// Tokens of the prompt that are not processed yet.
  int64_t prompt_left() const { return prompt_tokens_ - processed_; }
  /// Says how many of them the next step takes.
  void take_prompt(int64_t tokens) { taken_ = tokens; }
  /// Whether the next step comes to a choice.
  bool chooses() const { return taken_ == prompt_left(); }

  /// Rows of the next step.
  int64_t rows() const { return generation_->rows(); }
  /// Adds the parts and the choice, if any, of the next step; parts point into this job until
  /// that is told of. `looks_ahead`: as in ExecutorLimits.
  void add_to(StepPlan& plan, bool looks_ahead);
  /// A step without a choice is done.
  void go_on(Clock::time_point step_start);
  /// Takes a step's outcome. Tells the partial text.
  void advance(const Chosen& chosen, Clock::time_point step_start, Clock::time_point now);
  bool finished() const { return generation_->finished(); }
  const std::vector<int64_t>& ids() const { return generation_->ids(); }

  /// Ends the text as it is; only where in_text().
  void cut_off() { generation_->cancel(); }
  /// Calls `done` with the text. Frees slots and pictures first.
  void deliver(const Tokenizer& tokenizer);
  /// Calls `done` with the error. Frees slots and pictures first.
  void fail(const Error& error);
  /// Whether `done` was called.
  bool ended() const { return ended_; }

 private:
  void report_partial();
  void release();
  void done(Result<Description> result);

  RequestId id_;
  Request request_;
  Callbacks callbacks_;
  Settings settings_;
  bool cancelled_ = false;
  std::optional<Error> failure_;
  Prepared prepared_;
  int64_t prompt_tokens_ = 0;
  int64_t processed_ = 0;  ///< of the prompt's tokens
  int64_t taken_ = 0;      ///< of them, by the next step
  std::shared_ptr<const ImageEmbeds> images_;
  std::optional<Generation> generation_;
  std::optional<SequenceSlots> slots_;
  std::optional<StreamDecoder> partial_;
  size_t partial_bytes_ = 0;  ///< told so far
  bool in_text_ = false;
  bool ended_ = false;
  Clock::time_point submitted_;
  std::optional<Clock::time_point> first_step_;
  Clock::time_point first_token_;
  Clock::time_point last_token_;
  Timing timing_;
};

}  // namespace vlm
