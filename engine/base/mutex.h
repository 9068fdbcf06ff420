// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define VLM_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define VLM_THREAD_ANNOTATION(x)
#endif

#define VLM_GUARDED_BY(x) VLM_THREAD_ANNOTATION(guarded_by(x))
#define VLM_REQUIRES(...) VLM_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define VLM_EXCLUDES(...) VLM_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))

namespace vlm {

/// std::mutex that clang's thread-safety analysis understands.
class VLM_THREAD_ANNOTATION(capability("mutex")) Mutex {
 public:
  void lock() VLM_THREAD_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void unlock() VLM_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

/// Holds a Mutex for a scope.
class VLM_THREAD_ANNOTATION(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) VLM_THREAD_ANNOTATION(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() VLM_THREAD_ANNOTATION(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// Condition variable for Mutex. Wait in a loop that checks the condition.
class CondVar {
 public:
  void wait(Mutex& mutex) VLM_REQUIRES(mutex) { condition_.wait(mutex); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable_any condition_;
};

}  // namespace vlm
