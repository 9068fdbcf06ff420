// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

#include "loader/weights.h"

namespace vlm {

/// Whether `directory` holds a LoRA adapter. Reentrant.
bool has_lora(const std::string& directory);

/// Puts the adapter in `directory` (adapter_config.json, adapter_model.safetensors or .bin) on
/// `weights`, and takes over what was trained besides it (non_lora_trainables.bin). Throws Failure:
/// an adapter of a kind that the original project does not make, tensors without a place.
void apply_lora(const std::string& directory, Weights& weights);

}  // namespace vlm
