// SPDX-License-Identifier: LGPL-2.1-or-later
#include "model.h"

#include <dlfcn.h>

#include <chrono>
#include <filesystem>

#include "interrupt.h"

namespace describe {

namespace {

vlm::Error library_error(const std::string& library, const std::string& cause) {
  return {vlm::ErrorKind::kNotFound,
          "the engine library \"" + library + "\" can't be opened (" + cause +
              "); install it with the libtorch it was built against, or set VLM_ENGINE_LIBRARY to "
              "its path",
          {}};
}

vlm::Result<const vlm::EngineApi*> open_library(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open
  if (library == nullptr) {
    const char* cause = dlerror();
    return library_error(path, cause != nullptr ? cause : "no reason given");
  }
  const auto get = reinterpret_cast<decltype(&vlm_engine_api)>(dlsym(library, "vlm_engine_api"));
  if (get == nullptr) return library_error(path, "it is no engine library");
  const vlm::EngineApi* api = get(vlm::kEngineAbi);
  if (api == nullptr) return library_error(path, "it is of another version than vlm-describe");
  return api;
}

}  // namespace

Model::~Model() {
  stop_.request_stop();
  if (loading_.valid()) loading_.wait();
}

vlm::Status Model::open(const std::string& library, const vlm::ModelSpec& spec) {
  spec_ = spec;
  vlm::Result<const vlm::EngineApi*> api = open_library(library);
  if (!api) return api.error();
  api_ = *api;
  return api_->check_model(spec_);
}

vlm::Status Model::check(const vlm::Prompt& prompt, const vlm::Options& options) const {
  return api_->check_request(prompt, options);
}

void Model::start_loading() {
  loading_ = std::async(std::launch::async, [this] {
    const auto progress = [this](double fraction, const std::string&) { fraction_ = fraction; };
    return api_->open_engine(spec_, progress, stop_.get_token());
  });
}

vlm::Result<std::shared_ptr<vlm::Engine>> Model::engine(Progress& progress) {
  if (loaded_ != nullptr) return *loaded_;
  const auto began = std::chrono::steady_clock::now();
  const std::string name = std::filesystem::path(spec_.model).filename().string();
  bool shown = false;
  while (loading_.wait_for(std::chrono::milliseconds(100)) != std::future_status::ready) {
    if (!shown) progress.begin("loading " + name);
    shown = true;
    progress.fraction(fraction_);
    if (interrupted()) stop_.request_stop();
  }
  loaded_ = std::make_unique<Loaded>(loading_.get());
  if (*loaded_) {
    const vlm::ModelInfo& info = (**loaded_)->info();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    progress.say("model " + info.name + " on " + info.device + ": " +
                 std::to_string(info.parameters) + " parameters, context of " +
                 std::to_string(info.context_length) + " tokens, waited " +
                 std::to_string(took.count()) + " s for it");
  }
  return *loaded_;
}

}  // namespace describe
