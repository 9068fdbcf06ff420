// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/paged_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/bfloat16.h"

#if defined(__x86_64__)
#define VLM_CPU_CLONES __attribute__((target_clones("default", "arch=haswell")))
#else
#define VLM_CPU_CLONES
#endif

namespace vlm {
namespace {

constexpr int64_t kLanes = 16;

// Lanes of partial sums let the compiler use vector registers without reordering the sums itself.
template <typename T>
[[gnu::always_inline]] inline float dot(const float* a, const T* b, int64_t size) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * widen(b[i + lane]);
  }
  float sum = 0;
  for (; i < size; ++i) sum += a[i] * widen(b[i]);
  for (float lane : lanes) sum += lane;
  return sum;
}

struct Scratch {
  std::vector<float> query;   // [group, head_dim]
  std::vector<float> scores;  // [group, length]
  std::vector<float> sums;    // [group, head_dim]
};

// All query heads of one row that read one kv head: each cached key and value is read once for the
// group.
template <typename T>
[[gnu::always_inline]] inline void attend(const PagedAttentionArgs& args, int64_t row,
                                          int64_t kv_head, Scratch& scratch) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t dim = args.head_dim;
  const int64_t length = args.lengths[row];
  const int64_t first = args.window > 0 ? std::max<int64_t>(0, length - args.window) : 0;
  const int64_t span = length - first;
  const int32_t* slots = args.slot_table + row * args.table_stride + first;
  const int64_t slot_stride = args.kv_heads * dim;
  const T* keys = static_cast<const T*>(args.k_cache) + kv_head * dim;
  const T* values = static_cast<const T*>(args.v_cache) + kv_head * dim;
  const int64_t head_offset = (row * args.heads + kv_head * group) * dim;
  const T* q = static_cast<const T*>(args.q) + head_offset;
  T* out = static_cast<T*>(args.out) + head_offset;

  scratch.query.resize(group * dim);
  scratch.scores.resize(group * span);
  scratch.sums.assign(group * dim, 0.0f);
  for (int64_t i = 0; i < group * dim; ++i) scratch.query[i] = widen(q[i]) * args.scale;
  for (int64_t t = 0; t < span; ++t) {
    const T* key = keys + slots[t] * slot_stride;
    for (int64_t g = 0; g < group; ++g) {
      scratch.scores[g * span + t] = dot(scratch.query.data() + g * dim, key, dim);
    }
  }
  for (int64_t g = 0; g < group; ++g) {
    float* scores = scratch.scores.data() + g * span;
    const float top = *std::max_element(scores, scores + span);
    float total = 0;
    for (int64_t t = 0; t < span; ++t) total += scores[t] = std::exp(scores[t] - top);
    for (int64_t t = 0; t < span; ++t) scores[t] /= total;
  }
  for (int64_t t = 0; t < span; ++t) {
    const T* value = values + slots[t] * slot_stride;
    for (int64_t g = 0; g < group; ++g) {
      const float weight = scratch.scores[g * span + t];
      float* sum = scratch.sums.data() + g * dim;
      for (int64_t i = 0; i < dim; ++i) sum[i] += weight * widen(value[i]);
    }
  }
  for (int64_t i = 0; i < group * dim; ++i) narrow(scratch.sums[i], out + i);
}

VLM_CPU_CLONES void attend_float(const PagedAttentionArgs& args, int64_t begin, int64_t end,
                                 Scratch& scratch) {
  for (int64_t i = begin; i < end; ++i) {
    attend<float>(args, i / args.kv_heads, i % args.kv_heads, scratch);
  }
}

VLM_CPU_CLONES void attend_bfloat(const PagedAttentionArgs& args, int64_t begin, int64_t end,
                                  Scratch& scratch) {
  for (int64_t i = begin; i < end; ++i) {
    attend<uint16_t>(args, i / args.kv_heads, i % args.kv_heads, scratch);
  }
}

}  // namespace

void paged_attention_cpu(const PagedAttentionArgs& args) {
  const auto attend_range = args.type == KernelType::kBFloat16 ? attend_bfloat : attend_float;
  at::parallel_for(0, args.rows * args.kv_heads, 1, [&](int64_t begin, int64_t end) {
    thread_local Scratch scratch;
    attend_range(args, begin, end, scratch);
  });
}

void paged_attention_reference(const PagedAttentionArgs& args) {
  const auto* q = static_cast<const float*>(args.q);
  const auto* keys = static_cast<const float*>(args.k_cache);
  const auto* values = static_cast<const float*>(args.v_cache);
  auto* out = static_cast<float*>(args.out);
  const int64_t group = args.heads / args.kv_heads;
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* query = q + (row * args.heads + head) * args.head_dim;
      const int64_t length = args.lengths[row];
      const int64_t first = args.window > 0 ? std::max<int64_t>(0, length - args.window) : 0;
      std::vector<double> scores;
      double top = -std::numeric_limits<double>::infinity();
      const auto offset = [&](int64_t t) {
        const int64_t slot = args.slot_table[row * args.table_stride + t];
        return (slot * args.kv_heads + head / group) * args.head_dim;
      };
      for (int64_t t = first; t < length; ++t) {
        double sum = 0;
        for (int64_t i = 0; i < args.head_dim; ++i) {
          sum += static_cast<double>(query[i]) * static_cast<double>(keys[offset(t) + i]);
        }
        scores.push_back(sum * static_cast<double>(args.scale));
        top = std::max(top, scores.back());
      }
      double total = 0;
      for (double& score : scores) total += score = std::exp(score - top);
      for (int64_t i = 0; i < args.head_dim; ++i) {
        double sum = 0;
        for (int64_t t = first; t < length; ++t) {
          sum += scores[t - first] / total * static_cast<double>(values[offset(t) + i]);
        }
        out[(row * args.heads + head) * args.head_dim + i] = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace vlm
