// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The engine library, opened at run time so that the plugin itself loads anywhere, and the worker
// that loads a model.

#include <functional>
#include <memory>
#include <string>

#include "gstvlm-utils.h"
#include "vlm/engine.h"

namespace gstvlm {

/// The engine's functions: from $VLM_ENGINE_LIBRARY where set, else from where the library was
/// installed relative to the plugin, else by its soname. Opened once and kept; a failure is tried
/// again. Thread-safe.
vlm::Result<const vlm::EngineApi*> engine_api();

/// The checkpoint that an element without `model` uses: $VLM_MODEL, else the demo model installed
/// relative to the plugin. Thread-safe.
vlm::Result<std::string> default_model();

/// Loads one model at a time on a worker thread and reports with standard progress messages of the
/// code `vlm-load` (their structure also has the double `fraction`). Thread-safe.
class Loader {
 public:
  using Done = std::function<void(vlm::Result<std::shared_ptr<vlm::Engine>>)>;

  Loader();
  ~Loader() { abandon(); }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Starts loading for `element`, of which only a weak reference is kept. `done` is called on the
  /// worker, unless abandon() came first, while the element is alive; it must neither call back
  /// here nor post. `announce` follows where the model was loaded, and may post.
  void start(const vlm::EngineApi* api, vlm::ModelSpec spec, GstElement* element, Done done,
             std::function<void()> announce);

  /// Lets go of the load under way without waiting for it, only for a message that is being posted
  /// or an `announce` that has begun. After it, `done` is not called and nothing is posted.
  void abandon();

  /// Whether the load failed. True before anybody hears of it, and returned only when it has been
  /// posted, or to who hears of it on the worker.
  bool failed() const;

 private:
  struct Task;
  static void run(const std::shared_ptr<Task>& task);

  mutable Mutex mutex_;
  std::shared_ptr<Task> task_ GSTVLM_GUARDED_BY(mutex_);
};

}  // namespace gstvlm
