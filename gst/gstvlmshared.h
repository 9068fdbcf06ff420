// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What the streaming thread, the delivery thread and the application's threads of one element have
// in common.

#include <atomic>
#include <memory>
#include <string>

#include "gstvlm-utils.h"
#include "gstvlmdispatch.h"
#include "gstvlmheld.h"
#include "gstvlmsettings.h"
#include "gstvlmstats.h"
#include "gstvlmtext.h"

namespace gstvlm {

/// The newest finished description, for meta-policy=latest. Thread-safe.
class Latest {
 public:
  void set(StructurePtr structure) {
    std::shared_ptr<const GstStructure> next(std::move(structure));
    const Lock lock(mutex_);
    structure_.swap(next);
  }
  void clear() { set(nullptr); }
  std::shared_ptr<const GstStructure> get() const {
    const Lock lock(mutex_);
    return structure_;
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const GstStructure> structure_ GSTVLM_GUARDED_BY(mutex_);
};

/// One element's parts. Locks, in this order: a pad's stream lock, the element's object lock, a
/// part's own lock. Nothing is pushed, posted or asked of the engine under any but the first.
struct Shared {
  explicit Shared(GstElement* owner) : element(owner), text(owner) {}

  GstElement* const element;
  Dispatcher dispatcher;
  TextOutput text;
  HeldVideo held;
  Latest latest;
  Stats stats;

  /// Stream time of the newest video that has passed; kNoTime after a flush.
  std::atomic<uint64_t> newest_time = kNoTime;
  /// Found out at the first buffer of each stream.
  std::atomic<bool> live = false;
  std::atomic<bool> text_on_arrival = false;
  /// Whether the first request since READY has been made.
  std::atomic<bool> traced = false;

  Settings::Streaming streaming() const {
    const ObjectLock lock(element);
    return settings.streaming;
  }
  Settings all_settings() const {
    const ObjectLock lock(element);
    return settings;
  }

  Settings settings;             ///< under the object lock
  std::string last_description;  ///< under the object lock
};

}  // namespace gstvlm
