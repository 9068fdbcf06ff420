// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The model of one element: what is set is checked, and an engine for it found or loaded.

#include <optional>

#include "gstvlmengine.h"
#include "gstvlmshared.h"

namespace gstvlm {

/// Belongs to the element's state changes, which come one after another. Posts why something was
/// refused; hold no lock.
class Model {
 public:
  explicit Model(Shared& shared) : shared_(shared) {}

  /// Checks what is set and sees to an engine: one that a neighbour or the application has, else
  /// one that is loaded on a worker. False where something was refused: then the engine of before,
  /// or its load, stays as it was.
  bool prepare();

  /// Whether the element goes on from READY at once, so that a load that fails meanwhile is not
  /// tried, and complained of, once more on the way.
  void set_passing(bool passing) { passing_ = passing; }

  /// As prepare(), where the model that is set is neither there nor on its way. False also where
  /// its load has failed on the way through READY, which was posted then.
  bool keep();

  /// Lets go of the engine, or of its load.
  void release();

 private:
  bool refuse(const vlm::Error& error);
  bool is_current(const vlm::ModelSpec& wanted) const;
  std::optional<vlm::ModelSpec> checked(const vlm::EngineApi& api);
  bool take_offered(const vlm::ModelSpec& spec);
  void forget_current();
  void load(const vlm::EngineApi* api, const vlm::ModelSpec& spec);
  void loaded(vlm::Result<std::shared_ptr<vlm::Engine>> engine);
  void announce(const vlm::ModelSpec& spec);

  Shared& shared_;
  Loader loader_;
  std::optional<vlm::ModelSpec> spec_;  // of what is loaded or being loaded
  bool passing_ = false;
};

}  // namespace gstvlm
