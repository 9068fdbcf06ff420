// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmengine.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <list>
#include <optional>
#include <thread>
#include <vector>

namespace gstvlm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSoname = "libvlm.so.0";
constexpr const char* kProgressCode = "vlm-load";
constexpr int64_t kProgressPeriodUs = 100 * 1000;

// Where this plugin lies; the symbol's address is all that counts.
fs::path plugin_dir() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&engine_api), &info) == 0 || info.dli_fname == nullptr) {
    return {};
  }
  std::error_code failed;
  const fs::path path = fs::canonical(info.dli_fname, failed);
  return failed ? fs::path() : path.parent_path();
}

// `installed` as seen from the plugin, so that an installed tree may be moved.
fs::path relocated(const char* installed) {
  const fs::path relative = fs::path(installed).lexically_relative(VLM_PLUGINDIR);
  const fs::path here = plugin_dir();
  return here.empty() || relative.empty() ? fs::path(installed)
                                          : (here / relative).lexically_normal();
}

std::vector<std::string> library_candidates() {
  if (const char* set = std::getenv("VLM_ENGINE_LIBRARY"); set != nullptr && *set != '\0') {
    return {set};
  }
  std::vector<std::string> found;
  for (const fs::path& path :
       {relocated(VLM_LIBDIR) / kSoname, plugin_dir() / kSoname, fs::path(VLM_LIBDIR) / kSoname}) {
    std::error_code ignored;
    if (fs::exists(path, ignored)) {
      found.push_back(path.string());
    }
  }
  found.emplace_back(kSoname);
  return found;
}

vlm::Error library_error(const std::string& library, const std::string& cause) {
  return {vlm::ErrorKind::kNotFound,
          "The engine library " + library + " could not be opened (" + cause +
              "); install it together with the libtorch it was built against, add their "
              "directories to LD_LIBRARY_PATH, or set VLM_ENGINE_LIBRARY to the library's path.",
          cause};
}

vlm::Result<const vlm::EngineApi*> open_library() {
  const std::vector<std::string> candidates = library_candidates();
  std::optional<vlm::Error> first_failure;
  for (const std::string& candidate : candidates) {
    void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* cause = dlerror();
      if (!first_failure) {
        first_failure = library_error(candidate, cause == nullptr ? "no reason given" : cause);
      }
      continue;
    }
    const auto get = reinterpret_cast<decltype(&vlm_engine_api)>(dlsym(library, "vlm_engine_api"));
    const vlm::EngineApi* api = get == nullptr ? nullptr : get(vlm::kEngineAbi);
    if (api != nullptr) {
      return api;
    }
    dlclose(library);
    if (!first_failure) {
      first_failure =
          library_error(candidate, get == nullptr ? "it is not an engine library"
                                                  : "it is of another version than the plugin");
    }
  }
  return *first_failure;
}

}  // namespace

// What the worker and the element share.
struct Loader::Task {
  const vlm::EngineApi* api = nullptr;
  vlm::ModelSpec spec;
  GWeakRef element;
  std::stop_source stop;
  std::function<void()> announce;
  // Held while the worker speaks to the element, and abandon() waits for that: what the element
  // posts goes through its bin, which GStreamer frees without a look at who is posting. Recursive,
  // since whoever hears of it on the worker may stop the element there. Another thread's change of
  // state waits for it, as it does for a streaming thread that posts.
  std::recursive_mutex speaking;
  Done done;  // under `speaking`; empty: abandoned
  std::atomic<int64_t> last_progress_us = 0;
  std::atomic<bool> failed = false;

  explicit Task(GstElement* owner) { g_weak_ref_init(&element, owner); }
  ~Task() { g_weak_ref_clear(&element); }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  // Calls `body` with the element where that is alive and still wants the load; false else.
  template <typename Body>
  bool tell(Body body) {
    const ElementPtr owner(static_cast<GstElement*>(g_weak_ref_get(&element)));
    const std::lock_guard lock(speaking);
    if (owner == nullptr || !done) {
      return false;
    }
    body(owner.get());
    return true;
  }
};

namespace {

// Loads outlive their elements; the process must not end under them. Two places see to that, see
// MainThreadEnd and engine_api().
class Workers {
 public:
  static Workers& get() {
    static Workers* const workers = new Workers;  // used by an exit handler
    return *workers;
  }

  void start(std::stop_source stop, std::function<void()> work) {
    std::list<Worker> ended;  // joined without the lock
    const Lock lock(mutex_);
    for (auto worker = workers_.begin(); worker != workers_.end();) {
      const auto next = std::next(worker);
      if (*worker->done) {
        ended.splice(ended.end(), workers_, worker);
      }
      worker = next;
    }
    const auto done = std::make_shared<std::atomic<bool>>(false);
    workers_.push_back({std::move(stop), done, std::jthread([done, work = std::move(work)] {
                          guarded(nullptr, work);
                          *done = true;
                        })});
  }

  // Joins: a thread that is still leaving must not meet the libraries' own exit handlers.
  void finish() {
    std::list<Worker> all;
    {
      const Lock lock(mutex_);
      all.swap(workers_);
    }
    for (Worker& worker : all) {
      worker.stop.request_stop();
    }
  }

 private:
  struct Worker {
    std::stop_source stop;
    std::shared_ptr<std::atomic<bool>> done;
    std::jthread thread;
  };

  Mutex mutex_;
  std::list<Worker> workers_ GSTVLM_GUARDED_BY(mutex_);
};

// A load makes static objects of its own and of libtorch as it goes, and those end before any exit
// handler that was registered earlier. Objects of the thread that calls exit() end before them all
// ([basic.start.term]); that thread is most often the main one, whose objects end at no other time.
class MainThreadEnd {
 public:
  void touch() { used_ = true; }  // makes the thread's object
  ~MainThreadEnd() {
    if (used_ && gettid() == getpid()) {
      Workers::get().finish();
    }
  }

 private:
  bool used_ = false;
};

thread_local MainThreadEnd thread_end;

void post_progress(GstElement* element, GstProgressType type, const std::string& text,
                   double fraction) {
  GstMessage* message =
      gst_message_new_progress(GST_OBJECT(element), type, kProgressCode, text.c_str());
  gst_structure_set(gst_message_writable_structure(message), "fraction", G_TYPE_DOUBLE, fraction,
                    nullptr);
  gst_element_post_message(element, message);
}

}  // namespace

vlm::Result<const vlm::EngineApi*> engine_api() {
  static Mutex mutex;
  static const vlm::EngineApi* opened = nullptr;
  const Lock lock(mutex);
  if (opened == nullptr) {
    vlm::Result<const vlm::EngineApi*> api = open_library();
    if (!api) {
      return api;
    }
    opened = *api;
    // Where another thread than the main one ends the process: after what the library registered
    // when it was opened, so it runs before that.
    std::atexit([] { Workers::get().finish(); });
  }
  return opened;
}

vlm::Result<std::string> default_model() {
  if (const char* set = std::getenv("VLM_MODEL"); set != nullptr && *set != '\0') {
    return std::string(set);
  }
  std::error_code ignored;
  const fs::path path = relocated(VLM_DATADIR) / "demo-model";
  if (fs::exists(path, ignored)) {
    return path.string();
  }
  return vlm::Error{vlm::ErrorKind::kNotFound,
                    "No model is set and the demo model is not at " + path.string() +
                        "; set the property model (or VLM_MODEL) to a checkpoint directory.",
                    {}};
}

Loader::Loader() {
  thread_end.touch();
}

void Loader::start(const vlm::EngineApi* api, vlm::ModelSpec spec, GstElement* element, Done done,
                   std::function<void()> announce) {
  abandon();
  thread_end.touch();
  auto task = std::make_shared<Task>(element);
  task->api = api;
  task->spec = std::move(spec);
  task->announce = std::move(announce);
  task->done = std::move(done);
  {
    const Lock lock(mutex_);
    task_ = task;
  }
  Workers::get().start(task->stop, [task] { run(task); });
}

void Loader::abandon() {
  std::shared_ptr<Task> task;
  {
    const Lock lock(mutex_);
    task.swap(task_);
  }
  if (task == nullptr) {
    return;
  }
  task->stop.request_stop();
  const std::lock_guard lock(task->speaking);
  task->done = nullptr;
}

bool Loader::failed() const {
  std::shared_ptr<Task> task;
  {
    const Lock lock(mutex_);
    task = task_;
  }
  if (task == nullptr || !task->failed) {
    return false;
  }
  const std::lock_guard posted(task->speaking);
  return true;
}

void Loader::run(const std::shared_ptr<Task>& task) {
  const std::string loading = "Loading " + task->spec.model;
  task->tell(
      [&](GstElement* element) { post_progress(element, GST_PROGRESS_TYPE_START, loading, 0); });
  const auto progress = [task](double fraction, const std::string& what) {
    const int64_t now = monotonic_us();
    if (now - task->last_progress_us < kProgressPeriodUs) {
      return;
    }
    task->last_progress_us = now;
    task->tell([&](GstElement* element) {
      post_progress(element, GST_PROGRESS_TYPE_CONTINUE, what, fraction);
    });
  };
  vlm::Result<std::shared_ptr<vlm::Engine>> engine =
      task->api->open_engine(task->spec, progress, task->stop.get_token());
  const bool loaded = engine.ok();
  if (!loaded) {
    task->tell([&](GstElement* element) {
      task->failed = true;
      post_progress(element, GST_PROGRESS_TYPE_ERROR, engine.error().message, 0);
      post_error(element, engine.error(), Stage::kLoad);
    });
  }
  task->tell([&](GstElement*) { task->done(std::move(engine)); });
  if (loaded) {
    task->tell([&](GstElement* element) {
      post_progress(element, GST_PROGRESS_TYPE_COMPLETE, "Loaded " + task->spec.model, 1);
    });
    task->tell([&](GstElement*) { task->announce(); });
  }
}

}  // namespace gstvlm
