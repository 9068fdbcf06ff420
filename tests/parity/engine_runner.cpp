// SPDX-License-Identifier: LGPL-2.1-or-later

// Drives the engine's public API from a script: reads one JSON object a line, answers one a line.
//
//   {"command": "check", "model": {…}}            -> {"ok": true} or {"ok": false, "error": {…}}
//   {"command": "open", "model": {…}}             -> {"ok": true, "info": {…}}
//   {"command": "run", "requests": [{…}, …]}      -> {"results": [{…}, …]}, all submitted at once
//   {"command": "close"}                          -> {"ok": true}
//
// A request: "frames" [{"path", "width", "height"}] (files of raw RGB), "prompt", "options", and
// optionally "stream", "sequence", "trace", "partial", "cancel_after" (partial texts), "delay_ms"
// (from the request before it), "cancel_ms" (from its own submission).

#include <sys/resource.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "vlm/engine.h"
#include "vlm/names.h"

namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

const char* kind_name(vlm::ErrorKind kind) {
  switch (kind) {
    case vlm::ErrorKind::kInvalidArgument:
      return "invalid_argument";
    case vlm::ErrorKind::kNotFound:
      return "not_found";
    case vlm::ErrorKind::kInvalidModel:
      return "invalid_model";
    case vlm::ErrorKind::kUnsupported:
      return "unsupported";
    case vlm::ErrorKind::kPromptTooLong:
      return "prompt_too_long";
    case vlm::ErrorKind::kOutOfMemory:
      return "out_of_memory";
    case vlm::ErrorKind::kDevice:
      return "device";
    case vlm::ErrorKind::kCancelled:
      return "cancelled";
    case vlm::ErrorKind::kIo:
      return "io";
    case vlm::ErrorKind::kInternal:
      return "internal";
  }
  return "?";
}

json to_json(const vlm::Error& error) {
  return {{"kind", kind_name(error.kind)}, {"message", error.message}, {"detail", error.detail}};
}

json failure(const vlm::Error& error) {
  return {{"ok", false}, {"error", to_json(error)}};
}

template <typename T>
void read(const json& object, const char* key, std::optional<T>& value) {
  if (object.contains(key) && !object.at(key).is_null()) {
    value = object.at(key).get<T>();
  }
}

template <typename Enum, size_t kCount>
Enum read_enum(const json& object, const char* key, const vlm::EnumNames<Enum, kCount>& names,
               Enum otherwise) {
  return object.contains(key) ? vlm::enum_value(names, object.at(key).get<std::string>()).value()
                              : otherwise;
}

vlm::ModelSpec read_model(const json& object) {
  vlm::ModelSpec spec;
  spec.model = object.at("model");
  spec.vision_tower = object.value("vision_tower", "");
  spec.model_base = object.value("model_base", "");
  spec.device = object.value("device", "cpu");
  spec.dtype = read_enum(object, "dtype", vlm::kDTypeNames, vlm::DType::kFloat32);
  spec.quantization = read_enum(object, "quantization", vlm::kQuantizationNames, spec.quantization);
  spec.prompt_chunk = object.value("prompt_chunk", spec.prompt_chunk);
  return spec;
}

vlm::Frame read_frame(const json& object) {
  vlm::Frame frame;
  frame.width = object.at("width");
  frame.height = object.at("height");
  std::ifstream file(object.at("path").get<std::string>(), std::ios::binary);
  frame.rgb.assign(std::istreambuf_iterator<char>(file), {});
  return frame;
}

vlm::Prompt read_prompt(const json& object) {
  vlm::Prompt prompt;
  prompt.format = object.value("format", "auto");
  read(object, "system", prompt.system);
  for (const json& turn : object.at("turns")) {
    prompt.turns.push_back({turn.value("role", "user") == "user" ? vlm::Turn::Role::kUser
                                                                 : vlm::Turn::Role::kAssistant,
                            turn.at("text").get<std::string>()});
  }
  return prompt;
}

vlm::Options read_options(const json& object) {
  vlm::Options options;
  read(object, "max_new_tokens", options.max_new_tokens);
  read(object, "min_new_tokens", options.min_new_tokens);
  read(object, "temperature", options.temperature);
  read(object, "top_k", options.top_k);
  read(object, "top_p", options.top_p);
  read(object, "min_p", options.min_p);
  read(object, "repetition_penalty", options.repetition_penalty);
  read(object, "no_repeat_ngram_size", options.no_repeat_ngram_size);
  read(object, "num_beams", options.num_beams);
  read(object, "length_penalty", options.length_penalty);
  read(object, "repetition_guard", options.repetition_guard);
  read(object, "top_logprobs", options.top_logprobs);
  if (object.contains("early_stopping")) {
    options.early_stopping =
        read_enum(object, "early_stopping", vlm::kEarlyStoppingNames, vlm::EarlyStopping::kFalse);
  }
  read(object, "seed", options.seed);
  options.stop = object.value("stop", std::vector<std::string>{});
  options.image_aspect_ratio =
      read_enum(object, "image_aspect_ratio", vlm::kAspectRatioNames, options.image_aspect_ratio);
  return options;
}

json to_json(const vlm::Description& description) {
  const vlm::Timing& timing = description.timing;
  json object = {{"ok", true},
                 {"text", description.text},
                 {"prompt", description.prompt},
                 {"token_ids", description.token_ids},
                 {"logprobs", description.logprobs},
                 {"finish_reason", vlm::finish_reason_name(description.finish_reason)},
                 {"prompt_tokens", description.prompt_tokens},
                 {"image_tokens", description.image_tokens},
                 {"timing",
                  {{"wait_ms", timing.wait_ms},
                   {"vision_ms", timing.vision_ms},
                   {"prefill_ms", timing.prefill_ms},
                   {"decode_ms", timing.decode_ms},
                   {"total_ms", timing.total_ms}}}};
  for (const std::vector<vlm::TokenChoice>& choices : description.top_logprobs) {
    json list = json::array();
    for (const vlm::TokenChoice& choice : choices) {
      list.push_back({{"id", choice.id}, {"text", choice.text}, {"logprob", choice.logprob}});
    }
    object["top_logprobs"].push_back(list);
  }
  if (description.sequence_score) {
    object["sequence_score"] = *description.sequence_score;
  }
  return object;
}

/// Results of requests that are under way; the engine's callbacks fill it in.
class Pending {
 public:
  explicit Pending(size_t count) : results_(count), partials_(count), left_(count) {}

  /// Number of partial texts that request `index` has had.
  size_t add_partial(size_t index, const std::string& text) {
    const std::lock_guard lock(mutex_);
    partials_[index].push_back(text);
    changed_.notify_all();
    return partials_[index].size();
  }

  void set(size_t index, json result) {
    const std::lock_guard lock(mutex_);
    results_[index] = std::move(result);
    --left_;
    changed_.notify_all();
  }

  /// Waits until request `index` has had `count` partial texts or is done.
  void wait_partials(size_t index, size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [&] { return partials_[index].size() >= count || !results_[index].is_null(); });
  }

  std::vector<json> wait_all() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return left_ == 0; });
    for (size_t i = 0; i < results_.size(); ++i) {
      results_[i]["partials"] = partials_[i];
    }
    return results_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<json> results_;
  std::vector<std::vector<std::string>> partials_;
  size_t left_;
};

class Runner {
 public:
  json answer(const json& command) {
    const std::string name = command.at("command");
    if (name == "check") {
      const vlm::Status status = vlm::check_model(read_model(command.at("model")));
      return status ? json{{"ok", true}} : failure(status.error());
    }
    if (name == "open") {
      return open(read_model(command.at("model")));
    }
    if (name == "run") {
      return {{"results", run(command.at("requests"))}};
    }
    if (name == "close") {
      engine_.reset();
      return {{"ok", true}};
    }
    return {{"ok", false},
            {"error", {{"kind", "invalid_argument"}, {"message", "no command " + name}}}};
  }

 private:
  json open(const vlm::ModelSpec& spec) {
    engine_.reset();
    const auto start = Clock::now();
    vlm::Result<std::shared_ptr<vlm::Engine>> engine = vlm::open_engine(spec);
    if (!engine) {
      return failure(engine.error());
    }
    const std::chrono::duration<double> load = Clock::now() - start;
    engine_ = *engine;
    const vlm::ModelInfo& info = engine_->info();
    return {{"ok", true},
            {"load_seconds", load.count()},
            {"peak_kib", peak_kib()},
            {"info",
             {{"name", info.name},
              {"device", info.device},
              {"dtype", vlm::dtype_name(info.dtype)},
              {"parameters", info.parameters},
              {"weight_bytes", info.weight_bytes},
              {"kv_cache_bytes", info.kv_cache_bytes},
              {"context_length", info.context_length},
              {"vocab_size", info.vocab_size}}}};
  }

  std::vector<json> run(const json& requests) {
    const auto pending = std::make_shared<Pending>(requests.size());
    std::vector<std::optional<vlm::RequestId>> ids(requests.size());
    std::multimap<Clock::time_point, vlm::RequestId> cancels;
    for (size_t i = 0; i < requests.size(); ++i) {
      const Clock::time_point due = Clock::now() + milliseconds(requests[i], "delay_ms");
      cancel_until(due, cancels);
      std::this_thread::sleep_until(due);
      ids[i] = submit(requests[i], i, pending);
      if (ids[i] && requests[i].contains("cancel_ms")) {
        cancels.emplace(Clock::now() + milliseconds(requests[i], "cancel_ms"), *ids[i]);
      }
    }
    cancel_until(Clock::time_point::max(), cancels);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (ids[i] && requests[i].contains("cancel_after")) {
        pending->wait_partials(i, requests[i].at("cancel_after"));
        engine_->cancel(*ids[i]);
      }
    }
    std::vector<json> results = pending->wait_all();
    for (json& result : results) {
      result["peak_kib"] = peak_kib();
    }
    return results;
  }

  static std::chrono::milliseconds milliseconds(const json& request, const char* key) {
    return std::chrono::milliseconds(request.value(key, int64_t{0}));
  }

  /// Cancels what is to be cancelled before `due`, each at its time.
  void cancel_until(Clock::time_point due,
                    std::multimap<Clock::time_point, vlm::RequestId>& cancels) {
    while (!cancels.empty() && cancels.begin()->first < due) {
      std::this_thread::sleep_until(cancels.begin()->first);
      engine_->cancel(cancels.begin()->second);
      cancels.erase(cancels.begin());
    }
  }

  std::optional<vlm::RequestId> submit(const json& object, size_t index,
                                       const std::shared_ptr<Pending>& pending) {
    vlm::Request request;
    for (const json& frame : object.value("frames", json::array())) {
      request.frames.push_back(read_frame(frame));
    }
    request.prompt = read_prompt(object.at("prompt"));
    request.options = read_options(object.value("options", json::object()));
    request.stream = object.value("stream", uint64_t{0});
    request.sequence = object.value("sequence", uint64_t{0});
    request.trace_path = object.value("trace", "");
    vlm::Callbacks callbacks;
    if (object.value("partial", false)) {
      callbacks.partial = [pending, index](const std::string& text) {
        pending->add_partial(index, text);
      };
    }
    callbacks.done = [pending, index](vlm::Result<vlm::Description> result) {
      pending->set(index, result ? to_json(*result) : failure(result.error()));
    };
    const vlm::Result<vlm::RequestId> id =
        engine_->submit(std::move(request), std::move(callbacks));
    if (!id) {
      json refusal = failure(id.error());
      refusal["refused"] = true;
      pending->set(index, std::move(refusal));
      return std::nullopt;
    }
    return *id;
  }

  static int64_t peak_kib() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  }

  std::shared_ptr<vlm::Engine> engine_;
};

/// Texts must be whole UTF-8; one that is not is reported, not repaired.
std::string written(const json& answer) {
  try {
    return answer.dump();
  } catch (const json::type_error& error) {
    return json{{"ok", false}, {"error", {{"kind", "broken_utf8"}, {"message", error.what()}}}}
        .dump();
  }
}

}  // namespace

int main() {
  Runner runner;
  std::string line;
  while (std::getline(std::cin, line)) {
    json answer;
    try {
      answer = runner.answer(json::parse(line));
    } catch (const json::exception& error) {
      answer = {{"ok", false}, {"error", {{"kind", "bad_command"}, {"message", error.what()}}}};
    }
    std::cout << written(answer) << std::endl;
  }
  return 0;
}
