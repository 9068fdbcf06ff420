// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "executor.h"
#include "loader/config.h"
#include "scheduler/batch.h"
#include "scheduler/policy.h"
#include "scheduler/prepare.h"
#include "scheduler/request.h"
#include "text/tokenizer.h"
#include "vlm/engine.h"

namespace vlm {

/// What the scheduler needs to know of a model besides its executor.
struct SchedulerModel {
  std::shared_ptr<const Tokenizer> tokenizer;
  GenerationDefaults generation;  ///< eos_ids: the ones that count
  bool count_prompt = true;       ///< as in Settings
  std::unique_ptr<Preparer> preparer;
};

/// Engine over an executor: an inbox under a mutex, a thread that prepares requests ahead of the
/// model (as far as their pictures take modest memory), and the engine thread, which alone touches
/// the executor and calls all callbacks. The mutex guards the inbox alone and is not held while
/// anything is called.
class Scheduler : public Engine {
 public:
  Scheduler(SchedulerModel model, std::unique_ptr<Executor> executor);
  ~Scheduler() override;

  const ModelInfo& info() const override { return executor_->info(); }
  Result<RequestId> submit(Request request, Callbacks callbacks) override;
  void cancel(RequestId id) override;

 private:
  /// What the engine thread takes from the inbox at once.
  struct Delivery {
    std::vector<std::unique_ptr<Job>> jobs;
    std::vector<RequestId> cancels;
    bool closing = false;
    bool last = false;  ///< closing, and nothing can come after it
  };

  void prepare_loop() VLM_EXCLUDES(mutex_);
  void engine_loop() VLM_EXCLUDES(mutex_);
  /// Null once the engine closes.
  std::unique_ptr<Job> next_to_prepare() VLM_EXCLUDES(mutex_);
  void hand_over(std::unique_ptr<Job> job) VLM_EXCLUDES(mutex_);
  /// Waits for something new where `batch` is idle.
  Delivery take_delivery(const Batch& batch) VLM_EXCLUDES(mutex_);
  void close() VLM_EXCLUDES(mutex_);

  SchedulerModel model_;
  std::unique_ptr<Executor> executor_;

  Mutex mutex_;
  CondVar changed_;
  RequestId last_id_ VLM_GUARDED_BY(mutex_) = 0;
  FairQueue order_ VLM_GUARDED_BY(mutex_);
  std::unordered_map<RequestId, std::unique_ptr<Job>> unprepared_ VLM_GUARDED_BY(mutex_);
  RequestId preparing_ VLM_GUARDED_BY(mutex_) = 0;  ///< 0: none
  bool preparing_cancelled_ VLM_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Job>> ready_ VLM_GUARDED_BY(mutex_);
  int64_t prepared_bytes_ VLM_GUARDED_BY(mutex_) = 0;  ///< of pictures whose requests wait
  std::vector<RequestId> cancels_ VLM_GUARDED_BY(mutex_);
  std::optional<Error> fatal_ VLM_GUARDED_BY(mutex_);
  bool closing_ VLM_GUARDED_BY(mutex_) = false;
  bool preparer_gone_ VLM_GUARDED_BY(mutex_) = false;

  std::thread preparer_thread_;
  std::thread engine_thread_;
};

}  // namespace vlm
