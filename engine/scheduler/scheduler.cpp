// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/guard.h"
#include "scheduler/settings.h"

namespace vlm {
namespace {

// Of pictures made ready ahead of the model: more of them would only take memory.
constexpr int64_t kMostPreparedBytes = int64_t{128} << 20;

}  // namespace

Scheduler::Scheduler(SchedulerModel model, std::unique_ptr<Executor> executor)
    : model_(std::move(model)), executor_(std::move(executor)) {
  try {
    preparer_thread_ = std::thread([this] { prepare_loop(); });
    engine_thread_ = std::thread([this] { engine_loop(); });
  } catch (...) {
    close();
    throw;
  }
}

Scheduler::~Scheduler() {
  close();
  const MutexLock lock(mutex_);
  if (fatal_) {
    // libtorch ends the process where it cannot give back what lies on a lost device.
    static_cast<void>(executor_.release());
  }
}

void Scheduler::close() {
  {
    const MutexLock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (preparer_thread_.joinable()) {
    preparer_thread_.join();
  }
  {
    const MutexLock lock(mutex_);
    for (auto& [id, job] : unprepared_) {
      job->mark_cancelled();
      ready_.push_back(std::move(job));
    }
    unprepared_.clear();
    preparer_gone_ = true;
    changed_.notify_all();
  }
  if (engine_thread_.joinable()) {
    engine_thread_.join();
  }
}

Result<RequestId> Scheduler::submit(Request request, Callbacks callbacks) {
  return guarded([&]() -> Result<RequestId> {
    if (const Status status = check_format(request.prompt.format); !status) {
      return status.error();
    }
    if (const Status status = check_content(request.prompt, request.frames); !status) {
      return status.error();
    }
    Result<Settings> settings = resolve_options(request.options, model_.generation);
    if (!settings) {
      return settings.error();
    }
    settings->sequence = request.sequence;
    settings->vocab_size = info().vocab_size;
    settings->count_prompt = model_.count_prompt;
    const uint64_t stream = request.stream;

    const MutexLock lock(mutex_);
    if (fatal_) {
      return *fatal_;
    }
    const RequestId id = ++last_id_;
    auto job =
        std::make_unique<Job>(id, std::move(request), std::move(callbacks), std::move(*settings));
    unprepared_.emplace(id, std::move(job));
    order_.push(stream, id);
    changed_.notify_all();
    return id;
  });
}

void Scheduler::cancel(RequestId id) {
  const MutexLock lock(mutex_);
  if (auto node = unprepared_.extract(id); !node.empty()) {
    order_.remove(id);
    node.mapped()->mark_cancelled();
    ready_.push_back(std::move(node.mapped()));
  } else if (id == preparing_) {
    preparing_cancelled_ = true;
  } else {
    const auto ready = std::find_if(ready_.begin(), ready_.end(),
                                    [&](const auto& job) { return job->id() == id; });
    if (ready != ready_.end()) {
      (*ready)->mark_cancelled();
    } else {
      cancels_.push_back(id);
    }
  }
  changed_.notify_all();
}

std::unique_ptr<Job> Scheduler::next_to_prepare() {
  const MutexLock lock(mutex_);
  while (!closing_ && (order_.empty() || prepared_bytes_ >= kMostPreparedBytes)) {
    changed_.wait(mutex_);
  }
  if (closing_) {
    return nullptr;
  }
  preparing_ = order_.pop();
  preparing_cancelled_ = false;
  return std::move(unprepared_.extract(preparing_).mapped());
}

void Scheduler::hand_over(std::unique_ptr<Job> job) {
  const MutexLock lock(mutex_);
  if (preparing_cancelled_) {
    job->mark_cancelled();
  }
  preparing_ = 0;
  prepared_bytes_ += job->pixel_bytes();
  ready_.push_back(std::move(job));
  changed_.notify_all();
}

void Scheduler::prepare_loop() {
  while (std::unique_ptr<Job> job = next_to_prepare()) {
    job->prepare(*model_.preparer, executor_->info().context_length);
    hand_over(std::move(job));
  }
}

Scheduler::Delivery Scheduler::take_delivery(const Batch& batch) {
  const bool idle = batch.idle();
  const MutexLock lock(mutex_);
  const int64_t before = prepared_bytes_;
  prepared_bytes_ = batch.waiting_bytes();
  for (const std::unique_ptr<Job>& job : ready_) {
    prepared_bytes_ += job->pixel_bytes();
  }
  if (prepared_bytes_ < before) {
    changed_.notify_all();
  }
  while (idle && ready_.empty() && cancels_.empty() && !(closing_ && preparer_gone_)) {
    changed_.wait(mutex_);
  }
  Delivery delivery;
  delivery.jobs.swap(ready_);
  delivery.cancels.swap(cancels_);
  delivery.closing = closing_;
  delivery.last = closing_ && preparer_gone_;
  return delivery;
}

void Scheduler::engine_loop() {
  Batch batch(*executor_, *model_.tokenizer);
  for (bool last = false; !last;) {
    Delivery delivery = take_delivery(batch);
    for (std::unique_ptr<Job>& job : delivery.jobs) {
      batch.add(std::move(job));
    }
    for (const RequestId id : delivery.cancels) {
      batch.cancel(id);
    }
    if (delivery.closing) {
      batch.close();
    } else {
      batch.step();
    }
    if (batch.fatal()) {
      const MutexLock lock(mutex_);
      fatal_ = batch.fatal();
    }
    last = delivery.last;
  }
}

}  // namespace vlm
