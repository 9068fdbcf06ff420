// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What every file of the plugin uses: owning pointers for GStreamer's objects, an annotated mutex,
// the guard that keeps C++ exceptions out of C, and the way errors are posted.

#include <gst/gst.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "vlm/error.h"

#if defined(__clang__)
#define GSTVLM_THREAD(x) __attribute__((x))
#else
#define GSTVLM_THREAD(x)
#endif
#define GSTVLM_GUARDED_BY(x) GSTVLM_THREAD(guarded_by(x))
#define GSTVLM_REQUIRES(...) GSTVLM_THREAD(requires_capability(__VA_ARGS__))
#define GSTVLM_EXCLUDES(...) GSTVLM_THREAD(locks_excluded(__VA_ARGS__))

GST_DEBUG_CATEGORY_EXTERN(gst_vlm_debug);

namespace gstvlm {

/// A time or an id that is not known, as GST_CLOCK_TIME_NONE.
inline constexpr uint64_t kNoTime = UINT64_MAX;

/// std::mutex that clang's thread-safety analysis understands.
class GSTVLM_THREAD(capability("mutex")) Mutex {
 public:
  void lock() GSTVLM_THREAD(acquire_capability()) { mutex_.lock(); }
  void unlock() GSTVLM_THREAD(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

/// Holds a Mutex for a scope.
class GSTVLM_THREAD(scoped_lockable) Lock {
 public:
  explicit Lock(Mutex& mutex) GSTVLM_THREAD(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~Lock() GSTVLM_THREAD(release_capability()) { mutex_.unlock(); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Mutex& mutex_;
};

/// Holds a GObject's own lock (GST_OBJECT_LOCK) for a scope.
class ObjectLock {
 public:
  explicit ObjectLock(gpointer object) : object_(GST_OBJECT_CAST(object)) {
    GST_OBJECT_LOCK(object_);
  }
  ~ObjectLock() { GST_OBJECT_UNLOCK(object_); }
  ObjectLock(const ObjectLock&) = delete;
  ObjectLock& operator=(const ObjectLock&) = delete;

 private:
  GstObject* object_;
};

using Clock = std::chrono::steady_clock;

/// `ns` after `now`; nothing where the clock does not count that far, so that none waits for it.
inline std::optional<Clock::time_point> deadline_after(Clock::time_point now, uint64_t ns) {
  const std::chrono::nanoseconds left = Clock::time_point::max() - now;
  return ns < static_cast<uint64_t>(left.count())
             ? std::optional(now + std::chrono::nanoseconds(ns))
             : std::nullopt;
}

/// Condition variable for Mutex. Wait in a loop that checks the condition.
class CondVar {
 public:
  void wait(Mutex& mutex) GSTVLM_REQUIRES(mutex) { condition_.wait(mutex); }
  /// False where `deadline`, if there is one, passed.
  bool wait_until(Mutex& mutex, std::optional<Clock::time_point> deadline) GSTVLM_REQUIRES(mutex) {
    if (deadline) {
      return condition_.wait_until(mutex, *deadline) == std::cv_status::no_timeout;
    }
    condition_.wait(mutex);
    return true;
  }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable_any condition_;
};

struct Unref {
  void operator()(GstBuffer* buffer) const { gst_buffer_unref(buffer); }
  void operator()(GstBufferPool* pool) const { gst_object_unref(pool); }
  void operator()(GstEvent* event) const { gst_event_unref(event); }
  void operator()(GstStructure* structure) const { gst_structure_free(structure); }
  void operator()(GstElement* element) const { gst_object_unref(element); }
  void operator()(GstPad* pad) const { gst_object_unref(pad); }
  void operator()(gchar* text) const { g_free(text); }
};
using BufferPtr = std::unique_ptr<GstBuffer, Unref>;
using EventPtr = std::unique_ptr<GstEvent, Unref>;
using StructurePtr = std::unique_ptr<GstStructure, Unref>;
using ElementPtr = std::unique_ptr<GstElement, Unref>;
using PadPtr = std::unique_ptr<GstPad, Unref>;

inline EventPtr ref_event(GstEvent* event) {
  return EventPtr(gst_event_ref(event));
}
/// A GAP event over `gap` and the time that follows, or is in it; null where `gap` is no such event
/// or does not touch that time.
EventPtr prolonged_gap(GstEvent* gap, uint64_t start, uint64_t duration);

inline PadPtr ref_pad(GstPad* pad) {
  return PadPtr(GST_PAD_CAST(gst_object_ref(pad)));
}
inline StructurePtr copy_structure(const GstStructure* structure) {
  return StructurePtr(gst_structure_copy(structure));
}

/// What the element was doing when an Error came up; `stage` in the message's details.
enum class Stage { kLoad, kWindow };

/// Posts `error` as an element error (or warning) in the domain that fits its kind. The message's
/// details are a structure `vlm-error` with the strings `stage` (load, window) and `kind` (the name
/// of the ErrorKind in kebab case). Thread-safe; hold no lock.
void post_error(GstElement* element, const vlm::Error& error, Stage stage);
void post_warning(GstElement* element, const vlm::Error& error, Stage stage);

/// Posts that the engine library is missing. Thread-safe; hold no lock.
void post_missing_library(GstElement* element, const vlm::Error& error);

/// Posts what a catch block caught. Only inside one.
void post_exception(GstElement* element) noexcept;

/// Calls `body` and lets no exception out: it becomes an element error and `fallback` is returned.
template <typename T, typename Body>
T guarded(gpointer element, T fallback, Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    post_exception(GST_ELEMENT_CAST(element));
    return fallback;
  }
}
template <typename Body>
void guarded(gpointer element, Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
  } catch (...) {
    post_exception(GST_ELEMENT_CAST(element));
  }
}

/// Microseconds of a clock that never goes back.
inline int64_t monotonic_us() {
  return g_get_monotonic_time();
}

}  // namespace gstvlm
