// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "inputs.h"
#include "options.h"
#include "record.h"
#include "vlm/engine.h"

namespace describe {

/// Describes still pictures: several are with the engine at a time, results come out in order.
/// Thread-bound.
class Pictures {
 public:
  /// Called in the order of add(), once for each.
  using Done = std::function<void(const Input& input, vlm::Result<Record> result)>;

  Pictures(const Settings& settings, Done done);
  ~Pictures();

  /// Decodes and submits; may deliver results of earlier ones. `trace_path` may be empty. Where the
  /// picture can't go to the engine its failure is delivered in its place.
  void add(const Input& input, const std::shared_ptr<vlm::Engine>& engine,
           const std::string& trace_path);
  /// Delivers all that is pending. After an interruption it is cancelled first.
  void drain();

 private:
  struct Pending {
    Input input;
    std::shared_ptr<vlm::Engine> engine;  // null: failed already
    vlm::RequestId id = 0;
    size_t bytes = 0;
    std::future<vlm::Result<vlm::Description>> result;
  };
  void deliver_first();

  const Settings& settings_;
  Done done_;
  std::deque<Pending> pending_;
  size_t pending_bytes_ = 0;
};

/// "stop", "length", … Reentrant.
const char* finish_word(vlm::FinishReason reason);

}  // namespace describe
