// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "loader/config.h"
#include "vlm/error.h"

namespace vlm {

/// Sizes of the executor's fixed tensors and of its steps, decided once.
struct ExecutorLimits {
  int64_t max_rows = 0;      ///< sequences (beams counted each) in one step
  int64_t cache_slots = 0;   ///< tokens in the cache, over all sequences
  int64_t prompt_chunk = 0;  ///< tokens of prompts in a step beside texts under way; 1 at least
  int64_t prompt_part = 0;   ///< tokens of one prompt in a step of its own; prompt_chunk at least
  int64_t images = 1;        ///< images that go through the tower together
  bool looks_ahead = false;  ///< DecodePart::upcoming is of use
};

/// What a model on a device takes, and what there is to take. Bytes throughout.
struct MemoryDemand {
  bool on_cpu = true;
  int64_t context = 0;    ///< tokens
  int64_t available = 0;  ///< that could be allocated now, with what `mapped` takes of it
  int64_t mapped = 0;     ///< weights in pages of their file, which the system counts as free
  int64_t slot = 0;       ///< of the cache: one token's keys and values
  int64_t row = 0;        ///< of a step's activations: one token of a prompt
  int64_t past = 0;       ///< of them: one token that a prompt's part looks back at
  int64_t mask = 0;       ///< of them: one token of a part meeting one that it looks back at
  int64_t image = 0;      ///< of the tower's and projector's activations: one image
};

/// What the activations of `config` take, for numbers of `element_size` bytes: what a layer holds
/// at once at most. `masked`: parts of prompts look back through a mask.
MemoryDemand activation_demand(const ModelConfig& config, int64_t element_size, bool masked);

/// Cache and steps that fit the memory together. A CPU's is shared with everything else: the cache
/// gets a quarter of what the activations leave, for up to 16 contexts, but three quarters where
/// one context needs them. A GPU's is ours: four fifths, for up to 64 contexts. Parts of prompts
/// and passes through the tower are smaller where a tenth of the memory does not hold them.
/// `prompt_chunk`: as in ModelSpec. kOutOfMemory where hardly a prompt would fit.
Result<ExecutorLimits> choose_limits(const MemoryDemand& demand, int64_t prompt_chunk);

/// What cache and activations take at most.
int64_t bytes_at_most(const MemoryDemand& demand, const ExecutorLimits& limits);

}  // namespace vlm
