// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/request.h"

#include <algorithm>
#include <utility>

#include "base/guard.h"
#include "text/description.h"

namespace vlm {

namespace {

std::optional<Error> unknown_id(const std::vector<int64_t>& ids, int64_t vocab_size) {
  const auto unknown =
      std::find_if(ids.begin(), ids.end(), [&](int64_t id) { return id >= vocab_size; });
  if (unknown == ids.end()) {
    return std::nullopt;
  }
  return Error{ErrorKind::kInvalidModel,
               "the tokenizer gives id " + std::to_string(*unknown) +
                   " for the prompt, but the model knows ids below " + std::to_string(vocab_size) +
                   " only; the checkpoint's tokenizer and model do not belong together",
               {}};
}

std::vector<std::vector<TokenChoice>> told(
    const std::vector<std::shared_ptr<const Alternatives>>& steps, const Tokenizer& tokenizer) {
  std::vector<std::vector<TokenChoice>> lists;
  lists.reserve(steps.size());
  for (const auto& alternatives : steps) {
    std::vector<TokenChoice>& list = lists.emplace_back();
    for (const Alternative& choice : *alternatives) {
      list.push_back({choice.token, token_piece(tokenizer, choice.token), choice.logprob});
    }
  }
  return lists;
}

}  // namespace

Job::Job(RequestId id, Request request, Callbacks callbacks, Settings settings)
    : id_(id),
      request_(std::move(request)),
      callbacks_(std::move(callbacks)),
      settings_(std::move(settings)),
      submitted_(Clock::now()) {}

void Job::prepare(Preparer& preparer, int64_t context_length) {
  Result<Prepared> prepared = guarded([&] { return preparer.prepare(request_); });
  request_.frames = {};
  if (!prepared) {
    failure_ = prepared.error();
    return;
  }
  prepared_ = std::move(*prepared);
  failure_ = unknown_id(prepared_.prompt.ids, settings_.vocab_size);
  if (failure_) {
    prepared_ = {};
    return;
  }
  prompt_tokens_ = static_cast<int64_t>(prepared_.prompt.ids.size());
  const Status fits =
      fit_context(settings_, prompt_tokens(), prepared_.image_tokens, context_length);
  if (!fits) {
    failure_ = fits.error();
    prepared_.pixels = {};
  }
}

Share Job::need() const {
  return worst_case(prompt_tokens(), settings_.num_beams, settings_.max_new_tokens);
}

void Job::start(SlotPool& pool, const Tokenizer& tokenizer, Clock::time_point now) {
  slots_.emplace(pool, prompt_tokens());
  StopRules rules{settings_.eos_ids, StopStrings(tokenizer, settings_.stop),
                  settings_.max_new_tokens, settings_.repetition_guard};
  generation_.emplace(settings_, std::move(rules), prepared_.prompt.ids);
  if (callbacks_.partial && !settings_.beams()) {
    partial_.emplace(tokenizer);
  }
  timing_.wait_ms = milliseconds(submitted_, now);
}

int64_t Job::pixel_bytes() const {
  const PixelTensor& all = prepared_.pixels;
  return all.images * all.channels * all.height * all.width * static_cast<int64_t>(sizeof(float));
}

const PixelTensor* Job::pixels() const {
  return prepared_.pixels.images > 0 ? &prepared_.pixels : nullptr;
}

void Job::set_images(std::shared_ptr<const ImageEmbeds> images, double vision_ms) {
  images_ = std::move(images);
  timing_.vision_ms = vision_ms;
}

void Job::add_to(StepPlan& plan, bool looks_ahead) {
  const std::vector<SlotTable>& tables = slots_->tables();
  if (chooses()) plan.choices.push_back(generation_->choice(plan.rows()));
  if (!in_text_) {
    plan.prompts.push_back({&prepared_.prompt.ids, &prepared_.prompt.image_offsets, images_,
                            &tables[0], request_.trace_path, processed_, taken_});
  } else {
    for (int64_t row = 0; row < rows(); ++row) {
      plan.decodes.push_back({generation_->last_id(row), &tables[static_cast<size_t>(row)]});
    }
    if (looks_ahead && plan.choices.back().next_alike) {
      plan.decodes.back().upcoming = slots_->upcoming();
    }
  }
}

void Job::go_on(Clock::time_point step_start) {
  processed_ += std::exchange(taken_, 0);
  first_step_ = first_step_.value_or(step_start);
}

void Job::advance(const Chosen& chosen, Clock::time_point step_start, Clock::time_point now) {
  const std::span<const int64_t> parents = generation_->advance(chosen);
  if (!in_text_) {
    go_on(step_start);
    in_text_ = true;
    images_ = nullptr;
    // Only now a GPU has surely come to the end of what reads them.
    prepared_.pixels = {};
    first_token_ = now;
    timing_.prefill_ms = milliseconds(*first_step_, now);
  }
  last_token_ = now;
  if (!finished()) {
    slots_->advance(parents);
  }
  report_partial();
}

void Job::report_partial() {
  if (!partial_) {
    return;
  }
  partial_->push(generation_->ids().back());
  const std::string_view text = trimmed(partial_->text());
  if (text.size() == partial_bytes_) {
    return;
  }
  partial_bytes_ = text.size();
  shielded([&] { callbacks_.partial(std::string(text)); });
}

void Job::deliver(const Tokenizer& tokenizer) {
  Result<Description> result = guarded([&]() -> Result<Description> {
    Description description;
    description.text = description_text(tokenizer, generation_->ids());
    description.prompt = std::move(prepared_.prompt.text);
    description.token_ids = generation_->ids();
    description.logprobs = generation_->logprobs();
    description.top_logprobs = told(generation_->alternatives(), tokenizer);
    description.sequence_score = generation_->sequence_score();
    description.finish_reason = generation_->finish_reason();
    description.prompt_tokens = prompt_tokens();
    description.image_tokens = prepared_.image_tokens;
    timing_.decode_ms = milliseconds(first_token_, last_token_);
    timing_.total_ms = milliseconds(submitted_, Clock::now());
    description.timing = timing_;
    return description;
  });
  done(std::move(result));
}

void Job::fail(const Error& error) {
  done(error);
}

void Job::release() {
  slots_.reset();
  images_ = nullptr;
  prepared_ = {};
}

void Job::done(Result<Description> result) {
  release();
  ended_ = true;
  if (!callbacks_.done) {
    return;
  }
  shielded([&] { callbacks_.done(std::move(result)); });
}

}  // namespace vlm
