// SPDX-License-Identifier: LGPL-2.1-or-later
#include "registry.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "base/guard.h"

namespace vlm {
namespace {

std::string resolved(const std::string& path) {
  if (path.empty()) {
    return path;
  }
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::weakly_canonical(path, error);
  std::string text = error ? path : canonical.string();
  while (text.size() > 1 && text.back() == '/') {
    text.pop_back();
  }
  return text;
}

Error cancelled_error() {
  return {ErrorKind::kCancelled, "opening the model was cancelled", {}};
}

}  // namespace

std::string engine_key(const ModelSpec& spec) {
  std::string key;
  for (const std::string& path : {spec.model, spec.vision_tower, spec.model_base}) {
    key += resolved(path) + '\n';
  }
  key += (spec.device == "cuda" ? "cuda:0" : spec.device) + '\n';
  key += std::to_string(static_cast<int>(spec.dtype)) + '\n';
  key += std::to_string(static_cast<int>(spec.quantization)) + '\n';
  key += std::to_string(spec.prompt_chunk);
  return key;
}

/// One engine from the start of its loading to the end of its closing. Guarded by State::mutex.
struct EngineRegistry::Entry {
  std::weak_ptr<Engine> engine;
  std::optional<Error> error;  ///< of a load that failed
  double fraction = 0;         ///< newest progress
  std::string what;
  uint64_t progress_count = 0;
};

struct EngineRegistry::State {
  Mutex mutex;
  CondVar changed;
  std::map<std::string, std::shared_ptr<Entry>> entries VLM_GUARDED_BY(mutex);
};

/// What someone who waits has seen.
struct EngineRegistry::Watch {
  std::shared_ptr<Entry> entry;
  uint64_t told = 0;  ///< of entry's progress_count
};

/// What someone who opens does next; with none of the three: pass on the progress.
struct EngineRegistry::Event {
  std::optional<Error> error;
  std::shared_ptr<Engine> engine;  ///< take it
  std::shared_ptr<Entry> own;      ///< load it
  double fraction = 0;
  std::string what;
};

EngineRegistry::EngineRegistry() : state_(std::make_shared<State>()) {}

EngineRegistry::Event EngineRegistry::next_event(State& state, const std::string& key, Watch& watch,
                                                 const std::stop_token& stop) {
  Event event;
  const MutexLock lock(state.mutex);
  while (true) {
    if (stop.stop_requested()) {
      event.error = cancelled_error();
      return event;
    }
    if (watch.entry && watch.entry->error && watch.entry->error->kind != ErrorKind::kCancelled) {
      event.error = watch.entry->error;
      return event;
    }
    std::shared_ptr<Entry>& entry = state.entries[key];
    if (!entry) {
      entry = event.own = std::make_shared<Entry>();
      return event;
    }
    if ((event.engine = entry->engine.lock())) {
      return event;
    }
    if (watch.entry != entry) {
      watch = {entry, 0};
    }
    if (watch.told != entry->progress_count) {
      watch.told = entry->progress_count;
      event.fraction = entry->fraction;
      event.what = entry->what;
      return event;
    }
    state.changed.wait(state.mutex);
  }
}

Result<std::shared_ptr<Engine>> EngineRegistry::open(const std::string& key, const Loader& load,
                                                     const LoadProgress& progress,
                                                     std::stop_token stop) {
  const std::shared_ptr<State> state = state_;
  const std::stop_callback wake(stop, [&] {
    const MutexLock lock(state->mutex);
    state->changed.notify_all();
  });
  Watch watch;
  while (true) {
    const Event event = next_event(*state, key, watch, stop);
    if (event.error) {
      return *event.error;
    }
    if (event.engine) {
      return event.engine;
    }
    if (event.own) {
      return load_entry(state, event.own, key, load, progress);
    }
    if (progress) {
      progress(event.fraction, event.what);
    }
  }
}

Result<std::shared_ptr<Engine>> EngineRegistry::load_entry(const std::shared_ptr<State>& state,
                                                           const std::shared_ptr<Entry>& entry,
                                                           const std::string& key,
                                                           const Loader& load,
                                                           const LoadProgress& progress) {
  const auto leave = [state, key](const std::optional<Error>& error) {
    const MutexLock lock(state->mutex);
    state->entries[key]->error = error;
    state->entries.erase(key);
    state->changed.notify_all();
  };
  const LoadProgress told = [&](double fraction, const std::string& what) {
    {
      const MutexLock lock(state->mutex);
      entry->fraction = fraction;
      entry->what = what;
      ++entry->progress_count;
      state->changed.notify_all();
    }
    if (progress) {
      progress(fraction, what);
    }
  };
  Result<std::unique_ptr<Engine>> loaded = guarded([&] { return load(told); });
  if (!loaded) {
    leave(loaded.error());
    return loaded.error();
  }
  const std::shared_ptr<Engine> engine(loaded->release(), [leave](Engine* last) {
    delete last;
    leave(std::nullopt);
  });
  const MutexLock lock(state->mutex);
  entry->engine = engine;
  state->changed.notify_all();
  return engine;
}

}  // namespace vlm
