// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <atomic>
#include <future>
#include <memory>
#include <string>

#include "progress.h"
#include "vlm/engine.h"

namespace describe {

/// The engine library, opened at run time so that --help needs no libtorch, and one model in it,
/// loaded on a worker while inputs are prepared. Thread-bound.
class Model {
 public:
  ~Model();

  /// Opens the library and checks the checkpoint's files; quick.
  vlm::Status open(const std::string& library, const vlm::ModelSpec& spec);
  /// After open(): as the engine's own check_request.
  vlm::Status check(const vlm::Prompt& prompt, const vlm::Options& options) const;
  /// After open(): starts loading.
  void start_loading();

  /// Waits for the model and shows how far it is. The first failure is kept;
  /// ErrorKind::kCancelled where the user interrupted.
  vlm::Result<std::shared_ptr<vlm::Engine>> engine(Progress& progress);

 private:
  using Loaded = vlm::Result<std::shared_ptr<vlm::Engine>>;

  vlm::ModelSpec spec_;
  const vlm::EngineApi* api_ = nullptr;
  std::stop_source stop_;
  std::atomic<double> fraction_ = 0;
  std::future<Loaded> loading_;
  std::unique_ptr<Loaded> loaded_;
};

}  // namespace describe
