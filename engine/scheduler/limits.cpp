// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/limits.h"

#include <algorithm>
#include <string>

namespace vlm {
namespace {

// On a CPU: fewer would let texts under way go on sooner, and cost a twentieth of the speed.
constexpr int64_t kChunkOnCpu = 256;
// More gain no speed anywhere. Longer prompts are cut, so that what a step takes does not grow with
// the context.
constexpr int64_t kLongestPart = 2048;
constexpr int64_t kMostImages = 16;
// A cache of fewer tokens is of no use to anybody.
constexpr int64_t kFewestSlots = 256;

int64_t activations(const MemoryDemand& demand, const ExecutorLimits& limits) {
  return limits.prompt_part * demand.row + limits.images * demand.image;
}

// What looking back takes, for each token of the longest prompt.
int64_t looking_back(const MemoryDemand& demand, const ExecutorLimits& limits) {
  return demand.past + limits.prompt_part * demand.mask;
}

// Without the weights' pages, which are not to be driven out; of models larger than the memory they
// are in any case.
int64_t free_bytes(const MemoryDemand& demand) {
  return std::max(demand.available - demand.mapped, demand.available / 4);
}

ExecutorLimits step_limits(const MemoryDemand& demand, int64_t prompt_chunk) {
  const int64_t tenth = free_bytes(demand) / 10;
  const auto as_fit = [&](int64_t each, int64_t least, int64_t most) {
    return std::clamp(tenth / std::max<int64_t>(1, each), least, most);
  };
  ExecutorLimits limits;
  const int64_t part = as_fit(demand.row, kChunkOnCpu, kLongestPart);
  if (prompt_chunk == 0) prompt_chunk = demand.on_cpu ? kChunkOnCpu : part;
  limits.prompt_chunk = std::min(prompt_chunk, demand.context);
  limits.prompt_part = std::min(std::max(prompt_chunk, part), demand.context);
  limits.images = as_fit(demand.image, 1, kMostImages);
  return limits;
}

// Bytes that slots of the cache may take: those of one context, and those of more.
struct CacheShare {
  int64_t one;
  int64_t more;
};

CacheShare cache_share(const MemoryDemand& demand, const ExecutorLimits& limits) {
  const int64_t free = free_bytes(demand);
  const int64_t left = std::max<int64_t>(0, free - activations(demand, limits));
  if (demand.on_cpu) return {left / 4 * 3, left / 4};
  const int64_t share = std::min(left, free / 10 * 8);
  return {share, share};
}

}  // namespace

MemoryDemand activation_demand(const ModelConfig& config, int64_t element_size, bool masked) {
  const TextConfig& text = config.text;
  const VisionConfig& vision = config.vision;
  const int64_t q = text.heads * text.head_dim, kv = text.kv_heads * text.head_dim;
  // Beside the states before and after a layer's half: projections, turned and as they were, with
  // what attention makes of them; or both halves of the gate, and their product.
  const int64_t attention = 5 * text.hidden_size + 4 * q + 3 * kv;
  const int64_t gate = 5 * text.hidden_size + 3 * text.intermediate_size;
  MemoryDemand demand;
  demand.row = std::max(attention, gate) * element_size;
  demand.past = 2 * kv * element_size;
  demand.mask = masked ? 1 + element_size : 0;
  const int64_t tower =
      std::max(8 * vision.hidden_size, 5 * vision.hidden_size + 2 * vision.intermediate_size);
  const int64_t projector = config.feature_size() + 3 * text.hidden_size;
  const int64_t pixels = vision.channels * vision.image_size * vision.image_size;
  demand.image = (vision.patches() + 1) * std::max(tower, projector) * element_size +
                 pixels * static_cast<int64_t>(sizeof(float));
  return demand;
}

Result<ExecutorLimits> choose_limits(const MemoryDemand& demand, int64_t prompt_chunk) {
  ExecutorLimits limits = step_limits(demand, prompt_chunk);
  const CacheShare share = cache_share(demand, limits);
  const int64_t back = looking_back(demand, limits);
  limits.cache_slots = std::min(demand.context, share.one / (demand.slot + back));
  if (limits.cache_slots == demand.context) {
    const int64_t wanted = (demand.on_cpu ? 16 : 64) * demand.context;
    const int64_t fit = (share.more - demand.context * back) / demand.slot;
    limits.cache_slots = std::max(limits.cache_slots, std::min(wanted, fit));
  }
  if (limits.cache_slots < std::min(demand.context, kFewestSlots)) {
    return Error{
        ErrorKind::kOutOfMemory,
        "there is no memory left for the key-value cache: " + std::to_string(demand.available) +
            " bytes are free, of which the weights' file takes " + std::to_string(demand.mapped) +
            " and a step " + std::to_string(activations(demand, limits)) +
            ", and one token of the cache takes " + std::to_string(demand.slot) +
            "; free memory, raise its limit, or use a smaller model or type",
        {}};
  }
  limits.max_rows = std::clamp<int64_t>(limits.cache_slots / 64, 64, 256);
  return limits;
}

int64_t bytes_at_most(const MemoryDemand& demand, const ExecutorLimits& limits) {
  return limits.cache_slots * demand.slot + activations(demand, limits) +
         std::min(limits.cache_slots, demand.context) * looking_back(demand, limits);
}

}  // namespace vlm
