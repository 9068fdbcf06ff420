// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "inputs.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "pictures.h"
#include "places.h"
#include "progress.h"

namespace describe {

/// One call of the command, from checked options to the exit status. Inputs come one after the
/// other, but a source without an end goes on in a thread of its own beside those after it.
/// Thread-bound.
class Run {
 public:
  explicit Run(Settings settings);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  ExitStatus run();

 private:
  /// Whether to go on with the next input.
  enum class Next { kGoOn, kStop };

  vlm::Status prepare_model();
  Next describe(const Input& input);
  Next describe_picture(const Input& input);
  Next describe_one_video(const Input& input);
  void picture_done(const Input& input, vlm::Result<Record> result);
  void wait_for_all();

  // Called by the threads of videos too.
  void play(const Input& input, const std::string& trace, std::promise<bool>& goes_on);
  vlm::Status play_to(const Input& input, const std::string& trace,
                      const std::function<void()>& goes_on);
  void video_done(const Input& input, const vlm::Status& status);
  void done(bool described);
  void fail(const vlm::Error& error);
  vlm::Result<std::unique_ptr<InputOutput>> open(const Input& input, bool live);
  vlm::Status add(InputOutput& output, const Record& record);
  vlm::Status commit(InputOutput& output);
  std::string take_trace();
  void pass_on_trace(const std::string& trace, const vlm::Error& error);

  Settings settings_;
  Places places_;
  Progress progress_;
  std::unique_ptr<Output> output_;
  Model model_;
  std::shared_ptr<vlm::Engine> engine_;
  Pictures pictures_;
  std::optional<vlm::Error> picture_error_;  // why the last picture was not described
  size_t inputs_ = 0;                        // all of them
  std::vector<std::thread> going_;
  std::atomic<bool> output_broken_ = false;
  std::atomic<bool> stopped_ = false;  // nothing more is tried

  std::mutex mutex_;  // guards what follows, and output_ with all that it opened
  ExitStatus status_ = kAllDescribed;
  size_t finished_ = 0;
  size_t described_ = 0;  // inputs that succeeded
  std::string trace_;     // empty: none, or an input that may be described has it
};

}  // namespace describe
