// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The GstContext `vlm.engine`: a loaded engine that elements and applications hand to each other.

#include <memory>
#include <optional>

#include "gstvlm-utils.h"
#include "vlm/engine.h"

namespace gstvlm {

inline constexpr const char* kEngineContext = "vlm.engine";

/// An engine and what it was opened with.
struct SharedEngine {
  vlm::ModelSpec spec;
  std::shared_ptr<vlm::Engine> engine;
};

/// A context that owns a share of the engine: its structure holds `engine` (boxed, opaque) and the
/// strings `model`, `vision-tower`, `model-base`, `device`, `dtype`, `quantization`. Not
/// persistent: pipelines drop it in NULL. Reentrant.
GstContext* new_engine_context(const SharedEngine& shared);

/// What such a context holds; nothing for any other. Reentrant.
std::optional<SharedEngine> engine_of_context(GstContext* context);

/// Asks the neighbours, then the application, for an engine; an answer arrives through the
/// element's set_context. Hold no lock.
void ask_for_engine(GstElement* element);

/// Sets the engine's context on the element and tells the application and the neighbours of it.
/// Hold no lock.
void announce_engine(GstElement* element, const SharedEngine& shared);

/// Answers a CONTEXT query for an engine where the element has one; false for any other query.
bool answer_context(GstElement* element, GstQuery* query);

}  // namespace gstvlm
