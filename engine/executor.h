// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "loader/checkpoint.h"
#include "preprocess/image.h"
#include "scheduler/limits.h"
#include "scheduler/step_plan.h"
#include "vlm/engine.h"

namespace vlm {

/// Runs the model's stages for whatever a plan says; knows nothing of requests. Thread-bound (the
/// engine thread), but for the constant getters. Failures are thrown as Failure; a failed call
/// leaves no trace in the cache but in the slots that its plan named.
class Executor {
 public:
  virtual ~Executor() = default;

  virtual const ModelInfo& info() const = 0;
  virtual const ExecutorLimits& limits() const = 0;

  /// Tower and projector over the pictures of several requests at once; result i belongs to
  /// batch[i]. Where trace_paths[i] is not empty, pixel_values, vision_features and image_embeds
  /// are kept for that trace. `between` is called whenever as much is done as a part of a prompt
  /// takes: it may call run(), and what it throws ends the work.
  virtual std::vector<std::shared_ptr<const ImageEmbeds>> encode(
      const std::vector<const PixelTensor*>& batch, const std::vector<std::string>& trace_paths,
      const std::function<void()>& between) = 0;

  /// One step.
  virtual StepResult run(const StepPlan& plan) = 0;

  /// Writes what was kept for `trace_path`, with the generated ids, as safetensors; forgets it in
  /// any case.
  virtual Status write_trace(const std::string& trace_path,
                             const std::vector<int64_t>& token_ids) = 0;
  /// Forgets what was kept for `trace_path`, if anything: its request failed.
  virtual void drop_trace(const std::string& trace_path) = 0;
};

/// Loads the weights onto the device that `spec` names. Throws Failure.
std::unique_ptr<Executor> make_executor(const ModelSpec& spec,
                                        std::shared_ptr<const Checkpoint> checkpoint,
                                        const LoadProgress& progress, std::stop_token stop);

}  // namespace vlm
