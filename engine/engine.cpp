// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vlm/engine.h"

#include <future>
#include <utility>

#include "base/guard.h"
#include "executor.h"
#include "kernels/cpu.h"
#include "loader/checkpoint.h"
#include "preprocess/gpu_pictures.h"
#include "registry.h"
#include "scheduler/prepare.h"
#include "scheduler/scheduler.h"
#include "scheduler/settings.h"
#include "text/prompt.h"

namespace vlm {
namespace {

/// Engines of this process. Never destroyed: owners may outlive static objects.
EngineRegistry& registry() {
  static EngineRegistry* const engines = new EngineRegistry;
  return *engines;
}

std::unique_ptr<Engine> build_engine(const ModelSpec& spec,
                                     std::shared_ptr<const Checkpoint> checkpoint,
                                     const LoadProgress& progress, std::stop_token stop) {
  // On a thread that ends before the engine's own begins: OpenMP keeps helpers for every thread
  // that computed anything, and once there are more of them than processors, all go to sleep
  // between any two pieces of work. That costs small models a fifth of their speed.
  const auto load = [&] { return make_executor(spec, checkpoint, progress, std::move(stop)); };
  std::unique_ptr<Executor> executor = std::async(std::launch::async, load).get();
  SchedulerModel model;
  model.tokenizer = {checkpoint, &checkpoint->tokenizer()};
  model.generation = checkpoint->generation();
  if (model.generation.eos_ids.empty()) {
    model.generation.eos_ids = checkpoint->config().eos_ids;
  }
  model.count_prompt = checkpoint->config().layout == Layout::kHuggingFace;
  model.preparer = make_preparer(checkpoint, make_device_pictures(executor->info().device));
  return std::make_unique<Scheduler>(std::move(model), std::move(executor));
}

Result<std::shared_ptr<const Checkpoint>> open_checkpoint(const ModelSpec& spec) {
  if (const Status status = check_cpu_limit(); !status) {
    return status.error();
  }
  if (spec.prompt_chunk < 0) {
    return Error{ErrorKind::kInvalidArgument,
                 "prompt_chunk is " + std::to_string(spec.prompt_chunk) +
                     "; it is a number of tokens, or 0 for as many as suit the device",
                 {}};
  }
  return Checkpoint::open(spec);
}

Result<std::unique_ptr<Engine>> load_engine(const ModelSpec& spec, const LoadProgress& progress,
                                            std::stop_token stop) {
  progress(0, "checkpoint");
  Result<std::shared_ptr<const Checkpoint>> checkpoint = open_checkpoint(spec);
  if (!checkpoint) {
    return checkpoint.error();
  }
  return build_engine(spec, std::move(*checkpoint), progress, std::move(stop));
}

}  // namespace

Status check_model(const ModelSpec& spec) {
  return guarded([&]() -> Status {
    const auto checkpoint = open_checkpoint(spec);
    return checkpoint ? ok_status() : Status(checkpoint.error());
  });
}

Result<std::shared_ptr<Engine>> open_engine(const ModelSpec& spec, LoadProgress progress,
                                            std::stop_token stop) {
  return guarded([&] {
    const auto load = [&](const LoadProgress& told) { return load_engine(spec, told, stop); };
    return registry().open(engine_key(spec), load, progress, stop);
  });
}

Status check_request(const Prompt& prompt, const Options& options) {
  return guarded([&]() -> Status {
    if (const Status status = check_format(prompt.format); !status) {
      return status;
    }
    if (!prompt.turns.empty()) {
      if (const Status status = check_content(prompt, {}); !status) {
        return status;
      }
    }
    return check_options(options);
  });
}

const std::vector<std::string>& prompt_formats() {
  return prompt_format_names();
}

}  // namespace vlm

const vlm::EngineApi* vlm_engine_api(uint32_t abi) {
  static constexpr vlm::EngineApi kApi = {VLM_VERSION, vlm::check_model, vlm::open_engine,
                                          vlm::check_request, vlm::prompt_formats};
  return abi == vlm::kEngineAbi ? &kApi : nullptr;
}
