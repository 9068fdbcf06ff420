// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmmodel.h"

#include <utility>

#include "gstvlmcontext.h"
#include "gstvlmcuda.h"

namespace gstvlm {

bool Model::prepare() {
  const vlm::Result<const vlm::EngineApi*> api = engine_api();
  if (!api) {
    post_missing_library(shared_.element, api.error());
    return false;
  }
  const std::optional<vlm::ModelSpec> spec = checked(**api);
  if (!spec) {
    return false;
  }
  if (shared_.dispatcher.ready() && spec == spec_) {
    return true;
  }
  // Before the elements upstream, which start after this one, make contexts of their own.
  announce_cuda_context(shared_.element, spec->device);
  ask_for_engine(shared_.element);
  if (take_offered(*spec)) {
    return true;
  }
  if (const vlm::Status ok = (*api)->check_model(*spec); !ok) {
    return refuse(ok.error());
  }
  load(*api, *spec);
  return true;
}

bool Model::keep() {
  const bool passing = std::exchange(passing_, false);
  if (loader_.failed() && !shared_.dispatcher.ready()) {
    if (passing) {
      return false;
    }
    spec_.reset();  // its load failed, and what was wrong may have been mended
  }
  return is_current(shared_.all_settings().spec) || prepare();
}

void Model::release() {
  loader_.abandon();
  shared_.dispatcher.set_engine(nullptr);
  spec_.reset();
}

bool Model::refuse(const vlm::Error& error) {
  post_error(shared_.element, error, Stage::kLoad);
  return false;
}

// Where no model is set, the standard one was taken.
bool Model::is_current(const vlm::ModelSpec& wanted) const {
  if (!spec_) {
    return false;
  }
  vlm::ModelSpec named = wanted;
  if (named.model.empty()) {
    named.model = spec_->model;
  }
  return named == *spec_;
}

// The model to have; nothing where what is set was refused.
std::optional<vlm::ModelSpec> Model::checked(const vlm::EngineApi& api) {
  const Settings settings = shared_.all_settings();
  vlm::ModelSpec spec = settings.spec;
  if (spec.model.empty()) {
    const vlm::Result<std::string> standard = default_model();
    if (!standard) {
      refuse(standard.error());
      return std::nullopt;
    }
    spec.model = *standard;
  }
  if (settings.streaming.interval_ns == 0 && settings.streaming.frames != 1) {
    refuse({vlm::ErrorKind::kInvalidArgument,
            "interval=0 describes single frames; set frames=1 or an interval.",
            {}});
    return std::nullopt;
  }
  if (const vlm::Status ok = api.check_request(settings.engine_prompt(), settings.options); !ok) {
    refuse(ok.error());
    return std::nullopt;
  }
  return spec;
}

bool Model::take_offered(const vlm::ModelSpec& spec) {
  GstContext* context = gst_element_get_context(shared_.element, kEngineContext);
  const std::optional<SharedEngine> offered = engine_of_context(context);
  g_clear_pointer(&context, gst_context_unref);
  if (!offered || !(offered->spec == spec)) {
    return false;
  }
  announce_cuda_context(shared_.element, offered->engine->info().device);
  forget_current();
  spec_ = spec;
  shared_.dispatcher.set_engine(offered->engine);
  return true;
}

// A load under way is let go of first, so that it cannot fail what follows.
void Model::forget_current() {
  loader_.abandon();
  shared_.dispatcher.reset();
}

void Model::load(const vlm::EngineApi* api, const vlm::ModelSpec& spec) {
  forget_current();
  spec_ = spec;
  shared_.dispatcher.set_engine(nullptr);
  loader_.start(
      api, spec, shared_.element,
      [this](vlm::Result<std::shared_ptr<vlm::Engine>> engine) { loaded(std::move(engine)); },
      [this, spec] { announce(spec); });
}

// Called on the loading thread.
void Model::loaded(vlm::Result<std::shared_ptr<vlm::Engine>> engine) {
  if (engine) {
    shared_.dispatcher.set_engine(std::move(*engine));
  } else {
    shared_.dispatcher.fail();
    shared_.held.resolve_all();
  }
}

// Called on the loading thread, with no lock but the loader's own, which a stop waits for. The
// engine has set its GPU up by now, so this is quick.
void Model::announce(const vlm::ModelSpec& spec) {
  if (std::shared_ptr<vlm::Engine> engine = shared_.dispatcher.engine()) {
    announce_cuda_context(shared_.element, engine->info().device);
    announce_engine(shared_.element, {spec, std::move(engine)});
  }
}

}  // namespace gstvlm
