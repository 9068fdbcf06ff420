// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pictures.h"

#include <chrono>
#include <utility>

#include "fetch.h"
#include "interrupt.h"
#include "picture/picture.h"

namespace describe {

namespace {

/// As many as keep a batching engine busy, in as much memory as is still modest.
constexpr size_t kAhead = 8;
constexpr size_t kAheadBytes = size_t{512} << 20;

using Answer = vlm::Result<vlm::Description>;

vlm::Result<vlm::Frame> read_picture(const Input& input) {
  const auto bytes = input.path.empty() ? fetch(input.uri, kMaxPictureFile)
                                        : read_file(input.path, kMaxPictureFile);
  if (!bytes) return bytes.error();
  return decode_picture(*bytes);
}

std::future<Answer> failed_answer(vlm::Error error) {
  std::promise<Answer> promise;
  promise.set_value(std::move(error));
  return promise.get_future();
}

Record to_record(const Input& input, vlm::Description description) {
  Record record;
  record.source = input.source;
  record.frame_pts_ns = {0};
  record.finish_reason = finish_word(description.finish_reason);
  record.description = std::move(description);
  return record;
}

}  // namespace

const char* finish_word(vlm::FinishReason reason) {
  switch (reason) {
    case vlm::FinishReason::kStop:
      return "stop";
    case vlm::FinishReason::kLength:
      return "length";
    case vlm::FinishReason::kStopString:
      return "stop_string";
    case vlm::FinishReason::kRepetition:
      return "repetition";
    case vlm::FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

Pictures::Pictures(const Settings& settings, Done done)
    : settings_(settings), done_(std::move(done)) {}

Pictures::~Pictures() {
  for (Pending& pending : pending_) {
    if (pending.engine != nullptr) pending.engine->cancel(pending.id);
  }
}

void Pictures::add(const Input& input, const std::shared_ptr<vlm::Engine>& engine,
                   const std::string& trace_path) {
  while (pending_.size() >= kAhead) deliver_first();
  Pending pending;
  pending.input = input;
  vlm::Result<vlm::Frame> frame = read_picture(input);
  if (!frame) {
    vlm::Error error = frame.error();
    error.message = input.source + " " + error.message;
    pending.result = failed_answer(std::move(error));
    pending_.push_back(std::move(pending));
    return;
  }
  pending.bytes = frame->rgb.size();
  while (!pending_.empty() && pending_bytes_ + pending.bytes > kAheadBytes) deliver_first();
  vlm::Request request;
  request.frames.push_back(std::move(*frame));
  request.prompt = settings_.request_prompt();
  request.options = settings_.options;
  request.trace_path = trace_path;
  auto promise = std::make_shared<std::promise<Answer>>();
  pending.result = promise->get_future();
  vlm::Callbacks callbacks;
  callbacks.done = [promise](Answer answer) { promise->set_value(std::move(answer)); };
  const vlm::Result<vlm::RequestId> id = engine->submit(std::move(request), std::move(callbacks));
  if (id) {
    pending.engine = engine;
    pending.id = *id;
    pending_bytes_ += pending.bytes;
  } else {
    vlm::Error error = id.error();
    error.message = input.source + ": " + error.message;
    pending.result = failed_answer(std::move(error));
  }
  pending_.push_back(std::move(pending));
}

void Pictures::deliver_first() {
  Pending pending = std::move(pending_.front());
  pending_.pop_front();
  bool cancelled = false;
  while (pending.result.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (cancelled || !interrupted()) continue;
    cancelled = true;
    pending.engine->cancel(pending.id);
    for (const Pending& later : pending_) {
      if (later.engine != nullptr) later.engine->cancel(later.id);
    }
  }
  if (pending.engine != nullptr) pending_bytes_ -= pending.bytes;
  Answer answer = pending.result.get();
  if (answer && answer->finish_reason == vlm::FinishReason::kCancelled) {
    answer = vlm::Error{vlm::ErrorKind::kCancelled, "interrupted", {}};
  }
  if (answer) {
    done_(pending.input, to_record(pending.input, std::move(*answer)));
    return;
  }
  vlm::Error error = answer.error();
  if (pending.engine != nullptr) error.message = pending.input.source + ": " + error.message;
  done_(pending.input, error);
}

void Pictures::drain() {
  while (!pending_.empty()) deliver_first();
}

}  // namespace describe
