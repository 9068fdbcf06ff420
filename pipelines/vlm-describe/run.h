// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "inputs.h"
#include "model.h"
#include "options.h"
#include "output.h"
#include "pictures.h"
#include "places.h"
#include "progress.h"

namespace describe {

/// One call of the command, from checked options to the exit status. Thread-bound.
class Run {
 public:
  explicit Run(Settings settings);

  ExitStatus run();

 private:
  /// Whether to go on with the next input.
  enum class Next { kGoOn, kStop };

  vlm::Status prepare_model();
  Next describe(const Input& input);
  Next describe_picture(const Input& input);
  Next describe_one_video(const Input& input);
  void picture_done(const Input& input, vlm::Result<Record> result);
  void fail(const vlm::Error& error);
  vlm::Status add(InputOutput& output, const Record& record);

  Settings settings_;
  Places places_;
  Progress progress_;
  std::unique_ptr<Output> output_;
  Model model_;
  std::shared_ptr<vlm::Engine> engine_;
  Pictures pictures_;
  ExitStatus status_ = kAllDescribed;
  std::string trace_;  // not given to a request yet
  size_t inputs_ = 0;  // all of them
  size_t finished_ = 0;
  size_t described_ = 0;  // inputs that succeeded
  bool output_broken_ = false;
};

}  // namespace describe
