// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/paged_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "base/ceil_div.h"
#include "cuda/attention_index.h"
#include "kernels/bfloat16.h"
#include "kernels/cpu.h"
#include "kernels/lanes.h"
#include "kernels/paged_attention_avx512.h"

namespace vlm {
namespace {

// Vector registers of each query head that are in use at once.
template <int kLanes>
constexpr int kBlocksOf = kLanes / 4;

using Four [[gnu::vector_size(16)]] = float;

// The sums of each of four's lanes.
VLM_INLINE inline void total(const Lanes<8>* four, Four& sums) {
  const auto halve = [](const Lanes<8>& a, const Lanes<8>& b, Lanes<8>& half) VLM_INLINE {
    half = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
           __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  };
  Lanes<8> ab, cd;
  halve(four[0], four[1], ab);
  halve(four[2], four[3], cd);
  const Lanes<8> all = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                       __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  sums =
      __builtin_shufflevector(all, all, 0, 1, 2, 3) + __builtin_shufflevector(all, all, 4, 5, 6, 7);
}

VLM_INLINE inline void total(const Lanes<16>* four, Four& sums) {
  Lanes<8> halves[4];
  for (int i = 0; i < 4; ++i) {
    halves[i] = __builtin_shufflevector(four[i], four[i], 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(four[i], four[i], 8, 9, 10, 11, 12, 13, 14, 15);
  }
  total(halves, sums);
}

// One row and kv head: the query heads that read it, and the span of tokens that they see.
template <typename T>
struct Group {
  const T* keys;
  const T* values;
  const int32_t* slots;
  int64_t slot_stride, dim, span;
  AttentionScratch& scratch;
};

// Slots lie apart from each other, which no processor foresees: asks for `bytes` of the token that
// will be read some tokens from now.
template <typename T>
VLM_INLINE inline void announce(const Group<T>& group, const T* cache, int64_t t, int64_t bytes) {
  constexpr int64_t kAhead = 12, kLine = 64;
  const int64_t next = std::min(t + kAhead, group.span - 1);
  const char* data = reinterpret_cast<const char*>(cache + group.slots[next] * group.slot_stride);
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(data + at);
}

// The scores of four: of `kHeads` query heads from `head` on, which is four or one, and of as many
// tokens from `t` on; each key is read once for all heads.
template <int kLanes, int kHeads, typename T>
VLM_INLINE inline void score_four(const Group<T>& group, int64_t head, int64_t t) {
  constexpr int kTokens = 4 / kHeads;
  const float* query = group.scratch.query.data() + head * group.dim;
  const int64_t whole = group.dim / kLanes * kLanes;
  const T* keys[kTokens];
  for (int token = 0; token < kTokens; ++token) {
    // Beyond the end the last token is read again, and forgotten.
    const int64_t at = std::min(t + token, group.span - 1);
    keys[token] = group.keys + group.slots[at] * group.slot_stride;
    announce(group, group.keys, at, group.dim * static_cast<int64_t>(sizeof(T)));
  }
  Lanes<kLanes> sums[4] = {};
  for (int64_t i = 0; i < whole; i += kLanes) {
    Lanes<kLanes> k[kTokens], q[kHeads];
    VLM_UNROLL
    for (int token = 0; token < kTokens; ++token) load<kLanes>(keys[token] + i, k[token]);
    VLM_UNROLL
    for (int h = 0; h < kHeads; ++h) load<kLanes>(query + h * group.dim + i, q[h]);
    VLM_UNROLL
    for (int one = 0; one < 4; ++one) sums[one] += q[one % kHeads] * k[one % kTokens];
  }
  Four totals;
  total(sums, totals);
  for (int one = 0; one < 4; ++one) {
    const int h = one % kHeads, token = one % kTokens;
    if (t + token >= group.span) break;
    float sum = totals[one];
    for (int64_t i = whole; i < group.dim; ++i) {
      sum += query[h * group.dim + i] * widen(keys[token][i]);
    }
    group.scratch.scores[static_cast<size_t>((head + h) * group.span + t + token)] = sum;
  }
}

template <int kLanes, int kHeads, typename T>
VLM_INLINE inline void score(const Group<T>& group, int64_t head) {
  for (int64_t t = 0; t < group.span; t += 4 / kHeads) score_four<kLanes, kHeads>(group, head, t);
}

// Adds `kBlocks` registers' worth of all tokens' values from element `first` on, weighted by the
// scores: sums stay in registers, and each token's values are read one after the other.
template <int kLanes, int kBlocks, int kHeads, typename T>
VLM_INLINE inline void mix_panel(const Group<T>& group, const float* scores, int64_t first,
                                 float* sums) {
  Lanes<kLanes> mixed[kHeads][kBlocks] = {};
  for (int64_t t = 0; t < group.span; ++t) {
    const T* value = group.values + group.slots[t] * group.slot_stride + first;
    announce(group, group.values + first, t, kBlocks * kLanes * static_cast<int64_t>(sizeof(T)));
    Lanes<kLanes> values[kBlocks];
    VLM_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      load<kLanes>(value + block * kLanes, values[block]);
    }
    VLM_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const float weight = scores[h * group.span + t];
      VLM_UNROLL
      for (int block = 0; block < kBlocks; ++block) mixed[h][block] += values[block] * weight;
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    std::memcpy(sums + h * group.dim + first, mixed[h], sizeof mixed[h]);
  }
}

// Adds the values of all tokens, weighted by the scores, for `kHeads` heads from `head` on.
template <int kLanes, int kHeads, typename T>
VLM_INLINE inline void mix(const Group<T>& group, int64_t head) {
  constexpr int kBlocks = kBlocksOf<kLanes>;
  float* sums = group.scratch.sums.data() + head * group.dim;
  const float* scores = group.scratch.scores.data() + head * group.span;
  int64_t i = 0;
  for (; i + kBlocks * kLanes <= group.dim; i += kBlocks * kLanes) {
    mix_panel<kLanes, kBlocks, kHeads>(group, scores, i, sums);
  }
  for (; i + kLanes <= group.dim; i += kLanes) {
    mix_panel<kLanes, 1, kHeads>(group, scores, i, sums);
  }
  for (; i < group.dim; ++i) {
    for (int h = 0; h < kHeads; ++h) {
      float sum = 0;
      for (int64_t t = 0; t < group.span; ++t) {
        sum += scores[h * group.span + t] *
               widen(group.values[group.slots[t] * group.slot_stride + i]);
      }
      sums[h * group.dim + i] = sum;
    }
  }
}

// Weights are rounded to T's precision in effect, so bfloat16 may take the faster exponential.
template <int kLanes, typename T>
VLM_INLINE inline void soften(float* scores, int64_t span) {
  const float top = largest<kLanes>(scores, span);
  float sum = 0;
  int64_t t = 0;
  if constexpr (std::is_same_v<T, uint16_t>) {
    t = span / kLanes * kLanes;
    sum = exponentials<kLanes>(scores, t, top);
  }
  for (; t < span; ++t) sum += scores[t] = std::exp(scores[t] - top);
  const float by = 1 / sum;
  for (t = 0; t < span; ++t) scores[t] *= by;
}

template <int kLanes, int kHeads, typename T>
VLM_INLINE inline void attend_heads(const Group<T>& group, int64_t head) {
  score<kLanes, kHeads>(group, head);
  for (int h = 0; h < kHeads; ++h) {
    soften<kLanes, T>(group.scratch.scores.data() + (head + h) * group.span, group.span);
  }
  mix<kLanes, kHeads>(group, head);
}

template <int kLanes, typename T>
VLM_INLINE inline void attend(const PagedAttentionArgs& args, int64_t row, int64_t kv_head,
                              AttentionScratch& scratch) {
  const int64_t heads = args.heads / args.kv_heads;
  const int64_t dim = args.head_dim;
  const int64_t length = args.lengths[row];
  const int64_t first = first_visible(length, args.window);
  const Group<T> group = {static_cast<const T*>(args.k_cache) + kv_head * dim,
                          static_cast<const T*>(args.v_cache) + kv_head * dim,
                          args.slot_table + row * args.table_stride + first,
                          args.kv_heads * dim,
                          dim,
                          length - first,
                          scratch};
  const int64_t head_offset = (row * args.heads + kv_head * heads) * dim;
  const T* q = static_cast<const T*>(args.q) + head_offset;
  T* out = static_cast<T*>(args.out) + head_offset;

  scratch.query.resize(static_cast<size_t>(heads * dim));
  scratch.scores.resize(static_cast<size_t>(heads * group.span));
  scratch.sums.resize(static_cast<size_t>(heads * dim));
  for (int64_t i = 0; i < heads * dim; ++i) scratch.query[i] = widen(q[i]) * args.scale;
  constexpr int kHeads = 4;
  int64_t head = 0;
  for (; head + kHeads <= heads; head += kHeads) attend_heads<kLanes, kHeads>(group, head);
  for (; head < heads; ++head) attend_heads<kLanes, 1>(group, head);
  for (int64_t i = 0; i < heads * dim; ++i) narrow(scratch.sums[i], out + i);
}

template <typename T>
void attend_some(const PagedAttentionArgs& args, int64_t row, int64_t kv_head, int64_t kv_heads,
                 AttentionScratch& scratch) {
  with_lanes([&]<int kLanes>(std::integral_constant<int, kLanes>) VLM_INLINE {
    for (int64_t i = 0; i < kv_heads; ++i) attend<kLanes, T>(args, row, kv_head + i, scratch);
  });
}

}  // namespace

void AttentionScratch::make_room(const PagedAttentionArgs& args, int64_t longest) {
  const auto all = [&](int64_t size) { return static_cast<size_t>(args.heads * size); };
  query.reserve(all(args.head_dim));
  sums.reserve(all(padded_dim(args.head_dim)));
  scores.reserve(all(padded_span(longest)));
  weights.reserve(all(padded_span(longest)));
}

int64_t kv_heads_at_once(const PagedAttentionArgs& args, int threads) {
  int64_t total = 0, longest = 0;
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t length = args.lengths[row];
    const int64_t seen = length - first_visible(length, args.window);
    total += seen;
    longest = std::max(longest, seen);
  }
  for (int64_t parts = 1; parts < args.kv_heads; ++parts) {
    const int64_t at_once = ceil_div(args.kv_heads, parts);
    // No part is more than a thread's share, and no round of parts leaves many threads idle.
    const bool fits = longest * at_once * threads <= total * args.kv_heads;
    const int64_t all = args.rows * parts, rounds = ceil_div(all, threads);
    if (fits && 4 * rounds * threads <= 5 * all) return at_once;
  }
  return 1;
}

void paged_attention_part(const PagedAttentionArgs& args, int64_t row, int64_t kv_head,
                          int64_t kv_heads, AttentionScratch& scratch) {
#if defined(__x86_64__)
  if (args.type == KernelType::kBFloat16 && has_avx512_bfloat16()) {
    return paged_attention_avx512(args, row, kv_head, kv_heads, scratch);
  }
#endif
  const bool half = args.type == KernelType::kBFloat16;
  const auto attend = half ? attend_some<uint16_t> : attend_some<float>;
  attend(args, row, kv_head, kv_heads, scratch);
}

void paged_attention_cpu(const PagedAttentionArgs& args) {
  if (args.rows == 0) return;
  const int64_t at_once = kv_heads_at_once(args, at::get_num_threads());
  const int64_t parts = ceil_div(args.kv_heads, at_once);
  at::parallel_for(0, args.rows * parts, 1, [&](int64_t begin, int64_t end) {
    thread_local AttentionScratch scratch;
    for (; begin < end; ++begin) {
      const int64_t first = begin % parts * at_once;
      paged_attention_part(args, begin / parts, first, std::min(at_once, args.kv_heads - first),
                           scratch);
    }
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
      const int64_t first = first_visible(length, args.window);
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
