// SPDX-License-Identifier: LGPL-2.1-or-later

// An engine without a model, for tests of the element. The checkpoint's path says how it behaves:
//
//   fake:KEY=VALUE,…   load (ms), busy (ms more of loading in which no stop is seen), delay (ms for
//                      each request), fail-check, fail-load (a sentence), fail-first (only the
//                      first load of this path fails), fail-every (N: each Nth request fails),
//                      error (kind of those failures: device, memory, argument, long), words (as
//                      partial texts), text (instead of the standard one; ~ is a line break),
//                      options (the text lists them), gpu (N: says that it runs on cuda:N),
//                      tokens (that its context has; each picture takes four)
//
// The standard text is "PROMPT|WxH|R,G,B|N": the first frame's size and mean colour and the number
// of frames; "|gpu" follows where that frame came on a GPU, whose driver is the fake one then. All
// of it is reached through vlm_engine_api, as the real one is.

#include "fake_engine.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "cuda/picture_index.h"
#include "fake_driver/fake_driver.h"
#include "vlm/engine.h"

namespace {

using namespace std::chrono_literals;

std::mutex mutex;
std::condition_variable changed;
bool gate_closed = false;
int let_through = 0;
FakeCounts counts{};
struct Known {
  vlm::ModelSpec spec;
  std::weak_ptr<vlm::Engine> engine;
};
std::vector<Known> known;

constexpr int kVocabulary = 2000;
constexpr int kPictureTokens = 4;

std::map<std::string, std::string> settings_of(const std::string& path) {
  std::map<std::string, std::string> settings;
  size_t at = path.find(':') + 1;
  while (at < path.size()) {
    const size_t end = std::min(path.find(',', at), path.size());
    const std::string item = path.substr(at, end - at);
    const size_t equals = item.find('=');
    std::string& value = settings[item.substr(0, equals)];
    value = equals == std::string::npos ? "" : item.substr(equals + 1);
    std::replace(value.begin(), value.end(), '~', '\n');
    at = end + 1;
  }
  return settings;
}

int number(const std::map<std::string, std::string>& settings, const char* key, int standard) {
  const auto found = settings.find(key);
  return found == settings.end() ? standard : std::stoi(found->second);
}

vlm::ErrorKind kind_of(const std::string& name) {
  if (name == "device") {
    return vlm::ErrorKind::kDevice;
  }
  if (name == "memory") {
    return vlm::ErrorKind::kOutOfMemory;
  }
  return name == "long" ? vlm::ErrorKind::kPromptTooLong : vlm::ErrorKind::kInvalidArgument;
}

// The pixels of a picture on a GPU, as the GPU makes them.
std::vector<uint8_t> read_from_gpu(const vlm::GpuPicture& picture) {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  const auto read =
      reinterpret_cast<decltype(&fake_driver_read)>(dlsym(driver, "fake_driver_read"));
  vlm::PictureLayout here = picture.layout;
  std::vector<uint8_t> planes[2];
  for (int plane = 0; plane < 2; ++plane) {
    if (here.planes[plane] != nullptr) {
      const int rows = plane == 0 ? here.height : (here.height + 1) / 2;
      planes[plane].resize(static_cast<size_t>(here.strides[plane]) * static_cast<size_t>(rows));
      read(planes[plane].data(), here.planes[plane], planes[plane].size());
      here.planes[plane] = planes[plane].data();
    }
  }
  std::vector<uint8_t> rgb;
  for (int y = 0; y < picture.upright_height(); ++y) {
    for (int x = 0; x < picture.upright_width(); ++x) {
      const vlm::Rgb pixel = vlm::upright_pixel(here, x, y);
      rgb.insert(rgb.end(), {pixel.red, pixel.green, pixel.blue});
    }
  }
  dlclose(driver);
  return rgb;
}

std::string seen(const vlm::Request& request) {
  vlm::Frame frame = request.frames.front();
  if (frame.on_gpu != nullptr) {
    frame.rgb = read_from_gpu(*frame.on_gpu);
  }
  uint64_t sum[3] = {0, 0, 0};
  for (size_t i = 0; i < frame.rgb.size(); ++i) {
    sum[i % 3] += frame.rgb[i];
  }
  const uint64_t pixels = frame.rgb.size() / 3;
  return request.prompt.turns.back().text + "|" + std::to_string(frame.width) + "x" +
         std::to_string(frame.height) + "|" + std::to_string((sum[0] + pixels / 2) / pixels) + "," +
         std::to_string((sum[1] + pixels / 2) / pixels) + "," +
         std::to_string((sum[2] + pixels / 2) / pixels) + "|" +
         std::to_string(request.frames.size()) + (frame.on_gpu != nullptr ? "|gpu" : "");
}

template <typename T>
std::string one_option(const char* name, const std::optional<T>& value) {
  std::ostringstream text;
  if (value) {
    text << name << "=" << *value << ";";
  }
  return text.str();
}

// What the request asks for beside its pictures: only what was set.
std::string options_of(const vlm::Request& request) {
  const vlm::Options& options = request.options;
  std::optional<int> early;
  if (options.early_stopping) {
    early = static_cast<int>(*options.early_stopping);
  }
  std::string text =
      "prompt=" + request.prompt.turns.back().text + ";" +
      "prompt-format=" + request.prompt.format + ";" +
      one_option("system-prompt", request.prompt.system) +
      "image-aspect-ratio=" + std::to_string(static_cast<int>(options.image_aspect_ratio)) + ";" +
      one_option("max-new-tokens", options.max_new_tokens) +
      one_option("min-new-tokens", options.min_new_tokens) +
      one_option("temperature", options.temperature) + one_option("top-k", options.top_k) +
      one_option("top-p", options.top_p) + one_option("min-p", options.min_p) +
      one_option("repetition-penalty", options.repetition_penalty) +
      one_option("no-repeat-ngram-size", options.no_repeat_ngram_size) +
      one_option("repetition-guard", options.repetition_guard) +
      one_option("top-logprobs", options.top_logprobs) +
      one_option("num-beams", options.num_beams) +
      one_option("length-penalty", options.length_penalty) + one_option("early-stopping", early) +
      one_option("seed", options.seed);
  for (const std::string& stop : options.stop) {
    text += "stop=" + stop + ";";
  }
  return text + "frames=" + std::to_string(request.frames.size()) + ";";
}

class FakeEngine : public vlm::Engine {
 public:
  explicit FakeEngine(const vlm::ModelSpec& spec) : settings_(settings_of(spec.model)) {
    info_.name = "fake";
    info_.context_length = number(settings_, "tokens", 0);
    info_.picture_tokens = kPictureTokens;
    info_.device = settings_.count("gpu") > 0 ? "cuda:" + settings_["gpu"] : "cpu";
    thread_ = std::thread([this] { run(); });
    const std::lock_guard lock(mutex);
    ++counts.engines;
    ++counts.opened;
  }

  ~FakeEngine() override {
    {
      const std::lock_guard lock(mutex);
      closing_ = true;
      changed.notify_all();
    }
    thread_.join();
    const std::lock_guard lock(mutex);
    --counts.engines;
  }

  const vlm::ModelInfo& info() const override { return info_; }

  vlm::Result<vlm::RequestId> submit(vlm::Request request, vlm::Callbacks callbacks) override {
    const std::lock_guard lock(mutex);
    ++counts.submitted;
    queue_.push_back({++last_id_, std::move(request), std::move(callbacks), false});
    changed.notify_all();
    return last_id_;
  }

  void cancel(vlm::RequestId id) override {
    const std::lock_guard lock(mutex);
    for (Item& item : queue_) {
      item.cancelled = item.cancelled || item.id == id;
    }
    changed.notify_all();
  }

 private:
  struct Item {
    vlm::RequestId id;
    vlm::Request request;
    vlm::Callbacks callbacks;
    bool cancelled;
  };

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) {
        return;
      }
      // The front stays in the queue while it is worked on; only this thread removes it.
      const auto deadline = std::chrono::steady_clock::now() +
                            std::chrono::milliseconds(number(settings_, "delay", 0));
      const auto stopped = [this] { return closing_ || queue_.front().cancelled; };
      changed.wait(lock, [&] { return stopped() || !gate_closed || let_through > 0; });
      let_through -= gate_closed && !stopped() ? 1 : 0;
      changed.wait_until(lock, deadline, stopped);
      const bool cancelled = stopped();
      Item item = std::move(queue_.front());
      queue_.pop_front();
      cancelled ? ++counts.cancelled : ++counts.finished;
      lock.unlock();
      finish(item, cancelled);
      // Callbacks may own what owns this engine's lock order; drop them without it.
      item = Item();
      lock.lock();
    }
  }

  void finish(Item& item, bool cancelled) {
    if (cancelled) {
      item.callbacks.done(vlm::Error{vlm::ErrorKind::kCancelled, "It was cancelled.", ""});
      return;
    }
    const int every = number(settings_, "fail-every", 0);
    if (every > 0 && ++answered_ % every == 0) {
      item.callbacks.done(
          vlm::Error{kind_of(settings_["error"]), "The fake engine failed.", "fake"});
      return;
    }
    if (settings_.count("words") > 0 && item.callbacks.partial) {
      std::string text;
      for (const char* word : {"one", " two", " three"}) {
        text += word;
        item.callbacks.partial(text);
        std::this_thread::sleep_for(20ms);
      }
    }
    vlm::Description description;
    if (settings_.count("options") > 0) {
      description.text = options_of(item.request);
    } else {
      description.text = settings_.count("text") > 0 ? settings_["text"] : seen(item.request);
    }
    description.prompt = "USER: <image>\n" + item.request.prompt.turns.back().text;
    description.token_ids = {5, 6, 7, 2};
    description.logprobs = {-0.5F, -0.25F, -0.25F, -1.0F};
    for (const int64_t id : description.token_ids) {
      std::vector<vlm::TokenChoice> choices;
      // Like a model's, these end with the vocabulary.
      const int count = std::min(item.request.options.top_logprobs.value_or(0), kVocabulary);
      for (int i = 0; i < count; ++i) {
        choices.push_back({id + i, std::to_string(id + i), -0.5F * static_cast<float>(i)});
      }
      if (!choices.empty()) {
        description.top_logprobs.push_back(choices);
      }
    }
    description.prompt_tokens = 12;
    description.image_tokens = kPictureTokens;
    description.timing.prefill_ms = 10;
    description.timing.decode_ms = 10;
    item.callbacks.done(std::move(description));
  }

  std::map<std::string, std::string> settings_;
  vlm::ModelInfo info_;
  std::deque<Item> queue_;
  vlm::RequestId last_id_ = 0;
  int answered_ = 0;
  bool closing_ = false;
  std::thread thread_;
};

vlm::Status check_model(const vlm::ModelSpec& spec) {
  if (spec.model.rfind("fake:", 0) != 0) {
    return vlm::Error{vlm::ErrorKind::kNotFound, spec.model + " is no fake model.", ""};
  }
  if (settings_of(spec.model).count("fail-check") > 0) {
    return vlm::Error{vlm::ErrorKind::kInvalidModel, "The checkpoint is broken.", ""};
  }
  return vlm::ok_status();
}

/// A step of a load that looks at no stop and uses what it made for itself, as libtorch does.
void load_without_a_look(int ms) {
  static std::atomic<bool> gone;
  struct Made {
    ~Made() { gone = true; }
  };
  gone = false;
  static const Made made;
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  if (gone) {
    std::abort();
  }
}

bool is_first_load(const std::string& model) {
  static std::set<std::string> tried;
  const std::lock_guard lock(mutex);
  return tried.insert(model).second;
}

vlm::Result<std::shared_ptr<vlm::Engine>> open_engine(const vlm::ModelSpec& spec,
                                                      vlm::LoadProgress progress,
                                                      std::stop_token stop) {
  const std::map<std::string, std::string> settings = settings_of(spec.model);
  load_without_a_look(number(settings, "busy", 0));
  const int load_ms = number(settings, "load", 0);
  for (int done_ms = 0; done_ms < load_ms; done_ms += 5) {
    if (stop.stop_requested()) {
      return vlm::Error{vlm::ErrorKind::kCancelled, "Loading was cancelled.", ""};
    }
    progress(static_cast<double>(done_ms) / load_ms, "reading");
    std::this_thread::sleep_for(5ms);
  }
  if (settings.count("fail-load") > 0 ||
      (settings.count("fail-first") > 0 && is_first_load(spec.model))) {
    return vlm::Error{vlm::ErrorKind::kInvalidModel, "A tensor is missing.", ""};
  }
  static std::mutex one_at_a_time;
  const std::lock_guard opening(one_at_a_time);
  {
    const std::lock_guard lock(mutex);
    for (const Known& one : known) {
      // Of another spec it might be the last to hold it, and an engine's end takes the mutex.
      if (!(one.spec == spec)) continue;
      if (std::shared_ptr<vlm::Engine> engine = one.engine.lock()) return engine;
    }
  }
  std::shared_ptr<vlm::Engine> engine = std::make_shared<FakeEngine>(spec);
  const std::lock_guard lock(mutex);
  known.push_back({spec, engine});
  return engine;
}

vlm::Status check_request(const vlm::Prompt& prompt, const vlm::Options& options) {
  if (prompt.turns.empty() || prompt.turns.back().text.empty()) {
    return vlm::Error{vlm::ErrorKind::kInvalidArgument, "The prompt is empty.", ""};
  }
  if (options.top_p && *options.top_p <= 0) {
    return vlm::Error{vlm::ErrorKind::kInvalidArgument, "top-p must be above 0.", ""};
  }
  return vlm::ok_status();
}

const std::vector<std::string>& prompt_formats() {
  static const std::vector<std::string> formats = {"auto", "raw"};
  return formats;
}

}  // namespace

#define FAKE_EXPORT __attribute__((visibility("default")))

extern "C" FAKE_EXPORT void fake_close_gate() {
  const std::lock_guard lock(mutex);
  gate_closed = true;
  let_through = 0;
}

extern "C" FAKE_EXPORT void fake_open_gate(int count) {
  const std::lock_guard lock(mutex);
  if (count < 0) {
    gate_closed = false;
  } else {
    let_through += count;
  }
  changed.notify_all();
}

extern "C" FAKE_EXPORT FakeCounts fake_counts() {
  const std::lock_guard lock(mutex);
  return counts;
}

extern "C" FAKE_EXPORT int fake_opened(const char* model) {
  const std::lock_guard lock(mutex);
  return static_cast<int>(std::count_if(
      known.begin(), known.end(), [model](const Known& one) { return one.spec.model == model; }));
}

extern "C" FAKE_EXPORT const vlm::EngineApi* vlm_engine_api(uint32_t abi) {
  static const vlm::EngineApi api = {"fake", check_model, open_engine, check_request,
                                     prompt_formats};
  return abi == vlm::kEngineAbi ? &api : nullptr;
}
