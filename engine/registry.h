// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "base/mutex.h"
#include "vlm/engine.h"

namespace vlm {

/// What makes two specs the same engine: paths resolved, `cuda` read as `cuda:0`. Reentrant.
std::string engine_key(const ModelSpec& spec);

/// The engines of a process by key. An engine lives as long as someone owns it; who opens one that
/// is being loaded waits for it, and who opens one that is being closed waits and loads it anew, so
/// that the weights are never in memory twice. Thread-safe.
class EngineRegistry {
 public:
  using Loader = std::function<Result<std::unique_ptr<Engine>>(const LoadProgress& progress)>;

  EngineRegistry();

  /// `load` runs on the calling thread without a lock, unless another thread loads the same key:
  /// then this one waits, is told that one's progress, and gets its engine or its error. A load
  /// that was cancelled by its own caller does not fail the others: one of them starts again.
  Result<std::shared_ptr<Engine>> open(const std::string& key, const Loader& load,
                                       const LoadProgress& progress, std::stop_token stop);

 private:
  struct Entry;
  struct State;
  struct Watch;
  struct Event;

  static Event next_event(State& state, const std::string& key, Watch& watch,
                          const std::stop_token& stop);
  static Result<std::shared_ptr<Engine>> load_entry(const std::shared_ptr<State>& state,
                                                    const std::shared_ptr<Entry>& entry,
                                                    const std::string& key, const Loader& load,
                                                    const LoadProgress& progress);

  std::shared_ptr<State> state_;  ///< shared with the engines' deleters
};

}  // namespace vlm
