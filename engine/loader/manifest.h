// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loader/config.h"
#include "loader/weights.h"
#include "vlm/error.h"

namespace vlm {

/// One tensor that a checkpoint of some configuration holds.
struct ExpectedTensor {
  std::string name;  ///< canonical
  std::vector<int64_t> shape;
  bool needed = true;  ///< false: may be absent, because nothing reads it
};

/// Every tensor that a checkpoint with this configuration may hold. Reentrant.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

/// Index of the last tower block that the chosen feature layers need, counted from 1; 0 for none.
int64_t used_vision_layers(const ModelConfig& config);

/// Compares names and shapes: missing, misshapen and extra tensors are errors that name file, key
/// as canonical and as spelt, what was expected and found. Where the output's table is tied to the
/// embedding, either of them will do. `directory` is for messages. Reentrant.
Status verify_weights(const ModelConfig& config, const Weights& weights,
                      const std::string& directory);

/// Settles a tie between the output's table and the embedding as the reference does: a checkpoint
/// that holds both is not tied after all, and one that holds the output's alone embeds with that.
void tie_embeddings(ModelConfig& config, Weights& weights);

}  // namespace vlm
