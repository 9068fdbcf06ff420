// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/paged_attention_avx512.h"

#if defined(__x86_64__)

#include <algorithm>
#include <limits>

#include "cuda/attention_index.h"
#include "kernels/avx512.h"
#include "kernels/bfloat16.h"
#include "kernels/lanes.h"
#include "kernels/matvec_avx512_sums.h"

namespace vlm {
namespace {

constexpr int64_t kHalves = 32;  // of a register
constexpr int64_t kTokens = 4;   // whose scores are found together
constexpr int64_t kBlocks = 2;   // of kHalves elements, that values are mixed of at a time
// Of a cache, that all heads meet before the next so many: in the order in which they lie in
// memory, which processors foresee, where they did not foresee one head's part of each token after
// another.
constexpr int64_t kBytesAtOnce = int64_t{1} << 15;
constexpr int64_t kMostAtOnce = 64;  // tokens
constexpr int64_t kPanel = kBlocks * kHalves;

// One row and some kv heads next to each other: the query heads that read them, and the tokens that
// they see.
struct Group {
  const uint16_t* q;  // [kv_heads · heads, dim]
  const uint16_t* keys;
  const uint16_t* values;
  const int32_t* slots;
  int64_t slot_stride, kv_heads, heads, dim, span;
  int64_t stride;        // from one head's scores to the next one's, whole registers
  int64_t mixed_stride;  // the same of mixed values
  float scale;
  AttentionScratch& scratch;

  const uint16_t* at(const uint16_t* cache, int64_t t) const {
    return cache + slots[std::min(t, span - 1)] * slot_stride;
  }
  int64_t tokens_at_once() const {
    const int64_t tokens = kBytesAtOnce / (kv_heads * dim * 2);
    return std::clamp<int64_t>(tokens / kTokens * kTokens, kTokens, kMostAtOnce);
  }
};

VLM_AVX512_BFLOAT16 inline __m512bh load_halves(const uint16_t* from, int64_t count) {
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(first_lanes(count), from));
}

// The scores of some heads from `head` on and kTokens tokens from `t` on; beyond the last token its
// own again.
template <int kHeads>
VLM_AVX512_BFLOAT16 inline void score(const Group& group, int64_t head, int64_t t) {
  const uint16_t* q = group.q + head * group.dim;
  const uint16_t* of_head = group.keys + head / group.heads * group.dim;
  const uint16_t* keys[kTokens];
  VLM_UNROLL
  for (int64_t token = 0; token < kTokens; ++token) keys[token] = group.at(of_head, t + token);
  __m512 sums[kHeads][kTokens];
  VLM_UNROLL
  for (auto& own : sums) {
    VLM_UNROLL
    for (__m512& sum : own) sum = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < group.dim; i += kHalves) {
    __m512bh k[kTokens];
    VLM_UNROLL
    for (int64_t token = 0; token < kTokens; ++token) {
      k[token] = load_halves(keys[token] + i, group.dim - i);
    }
    VLM_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const __m512bh own = load_halves(q + h * group.dim + i, group.dim - i);
      VLM_UNROLL
      for (int64_t token = 0; token < kTokens; ++token) {
        sums[h][token] = _mm512_dpbf16_ps(sums[h][token], own, k[token]);
      }
    }
  }
  float* scores = group.scratch.scores.data() + head * group.stride + t;
  VLM_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    const __m128 scaled = _mm_mul_ps(avx512::totals(sums[h]), _mm_set1_ps(group.scale));
    _mm_storeu_ps(scores + h * group.stride, scaled);
  }
}

// Scores become weights in bfloat16, with zeros behind the last.
VLM_AVX512 void soften(const Group& group, int64_t head) {
  constexpr int kLanes = 16;
  float* scores = group.scratch.scores.data() + head * group.stride;
  uint16_t* weights = group.scratch.weights.data() + head * group.stride;
  std::fill(scores + group.span, scores + group.stride, -std::numeric_limits<float>::infinity());
  Lanes<kLanes> tops;
  load<kLanes>(scores, tops);
  for (int64_t t = kLanes; t < group.stride; t += kLanes) {
    Lanes<kLanes> some;
    load<kLanes>(scores + t, some);
    tops = some > tops ? some : tops;
  }
  float top = tops[0];
  for (int lane = 1; lane < kLanes; ++lane) top = std::max<float>(top, tops[lane]);
  const float sum = exponentials<kLanes>(scores, group.stride, top);
  for (int64_t t = 0; t < group.stride; t += kLanes) {
    Lanes<kLanes> some;
    load<kLanes>(scores + t, some);
    some *= 1 / sum;
    store<kLanes>(some, weights + t);
  }
  std::fill(weights + group.span, weights + group.stride, uint16_t{0});
}

// Elements of two tokens' values next to each other, as products of two want them: of each eight
// the first four, and the last four.
struct Pairs {
  __m512bh low, high;
};

VLM_AVX512_BFLOAT16 inline Pairs pair_up(__m512i first, __m512i second) {
  return {reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(first, second)),
          reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(first, second))};
}

// Sums of some heads' values, of each eight elements the first four apart from the last four.
template <int kHeads>
struct Mixed {
  __m512 low[kHeads][kBlocks], high[kHeads][kBlocks];
};

// Adds elements `first` … of the tokens t and t + 1, weighted.
template <int kHeads>
VLM_AVX512_BFLOAT16 inline void mix_pair(const Group& group, int64_t head, int64_t first, int64_t t,
                                         Mixed<kHeads>& mixed) {
  const uint16_t* values = group.values + head / group.heads * group.dim + first;
  const uint16_t* one = group.at(values, t);
  const uint16_t* two = group.at(values, t + 1);
  const uint16_t* weights = group.scratch.weights.data() + head * group.stride + t;
  Pairs pairs[kBlocks];
  VLM_UNROLL
  for (int64_t block = 0; block < kBlocks; ++block) {
    const int64_t at = block * kHalves;
    const __mmask32 mask = first_lanes(group.dim - first - at);
    // Nothing, not even what is no number, comes from beyond the last token.
    pairs[block] = pair_up(_mm512_maskz_loadu_epi16(mask, one + at),
                           _mm512_maskz_loadu_epi16(t + 1 < group.span ? mask : 0, two + at));
  }
  VLM_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    const auto* both = reinterpret_cast<const std::byte*>(weights + h * group.stride);
    const auto weight = reinterpret_cast<__m512bh>(repeat_word(both));
    VLM_UNROLL
    for (int64_t block = 0; block < kBlocks; ++block) {
      mixed.low[h][block] = _mm512_dpbf16_ps(mixed.low[h][block], pairs[block].low, weight);
      mixed.high[h][block] = _mm512_dpbf16_ps(mixed.high[h][block], pairs[block].high, weight);
    }
  }
}

// Back in order.
VLM_AVX512 inline void store_mixed(__m512 low, __m512 high, float* to) {
  const __m512i from_both =
      _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
  const __m512i upper = _mm512_add_epi32(from_both, _mm512_set1_epi32(8));
  _mm512_storeu_ps(to, _mm512_permutex2var_ps(low, from_both, high));
  _mm512_storeu_ps(to + 16, _mm512_permutex2var_ps(low, upper, high));
}

// Adds elements `first` …, as many as kBlocks hold, of the values of tokens begin … end, weighted.
template <int kHeads>
VLM_AVX512_BFLOAT16 inline void mix(const Group& group, int64_t head, int64_t first, int64_t begin,
                                    int64_t end) {
  float* sums = group.scratch.sums.data() + head * group.mixed_stride + first;
  Mixed<kHeads> mixed;
  VLM_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    VLM_UNROLL
    for (int64_t block = 0; block < kBlocks; ++block) {
      const float* from = sums + h * group.mixed_stride + 32 * block;
      mixed.low[h][block] = _mm512_loadu_ps(from);
      mixed.high[h][block] = _mm512_loadu_ps(from + 16);
    }
  }
  for (int64_t t = begin; t < end; t += 2) mix_pair<kHeads>(group, head, first, t, mixed);
  VLM_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    VLM_UNROLL
    for (int64_t block = 0; block < kBlocks; ++block) {
      float* to = sums + h * group.mixed_stride + 32 * block;
      _mm512_storeu_ps(to, mixed.low[h][block]);
      _mm512_storeu_ps(to + 16, mixed.high[h][block]);
    }
  }
}

template <int kHeads>
VLM_AVX512_BFLOAT16 void score_some(const Group& group, int64_t head, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t += kTokens) score<kHeads>(group, head, t);
}

template <int kHeads>
VLM_AVX512_BFLOAT16 void mix_some(const Group& group, int64_t head, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < group.dim; i += kPanel) mix<kHeads>(group, head, i, begin, end);
}

using Heads = void (*)(const Group& group, int64_t head, int64_t begin, int64_t end);

// All tokens, some at a time: each four heads that read the same kv head, the rest one by one.
void over_tokens(const Group& group, Heads four, Heads one) {
  const int64_t step = group.tokens_at_once();
  for (int64_t begin = 0; begin < group.span; begin += step) {
    const int64_t end = std::min(begin + step, group.span);
    for (int64_t kv_head = 0; kv_head < group.kv_heads; ++kv_head) {
      int64_t head = kv_head * group.heads;
      const int64_t last = head + group.heads;
      for (; head + 4 <= last; head += 4) four(group, head, begin, end);
      for (; head < last; ++head) one(group, head, begin, end);
    }
  }
}

VLM_AVX512 void finish(const Group& group, uint16_t* out) {
  float wide[kHalves];
  for (int64_t head = 0; head < group.kv_heads * group.heads; ++head, out += group.dim) {
    const float* sums = group.scratch.sums.data() + head * group.mixed_stride;
    for (int64_t i = 0; i < group.dim; i += kHalves) {
      store_mixed(_mm512_loadu_ps(sums + i), _mm512_loadu_ps(sums + i + 16), wide);
      const int64_t count = std::min(kHalves, group.dim - i);
      for (int64_t k = 0; k < count; ++k) narrow(wide[k], out + i + k);
    }
  }
}

}  // namespace

void paged_attention_avx512(const PagedAttentionArgs& args, int64_t row, int64_t kv_head,
                            int64_t kv_heads, AttentionScratch& scratch) {
  const int64_t heads = args.heads / args.kv_heads, dim = args.head_dim;
  const int64_t length = args.lengths[row];
  const int64_t first = first_visible(length, args.window);
  const int64_t offset = (row * args.heads + kv_head * heads) * dim;
  const Group group = {static_cast<const uint16_t*>(args.q) + offset,
                       static_cast<const uint16_t*>(args.k_cache) + kv_head * dim,
                       static_cast<const uint16_t*>(args.v_cache) + kv_head * dim,
                       args.slot_table + row * args.table_stride + first,
                       args.kv_heads * dim,
                       kv_heads,
                       heads,
                       dim,
                       length - first,
                       AttentionScratch::padded_span(length - first),
                       AttentionScratch::padded_dim(dim),
                       args.scale,
                       scratch};
  const int64_t all = kv_heads * heads;
  scratch.scores.resize(static_cast<size_t>(all * group.stride));
  scratch.weights.resize(static_cast<size_t>(all * group.stride));
  scratch.sums.assign(static_cast<size_t>(all * group.mixed_stride), 0);
  over_tokens(group, score_some<4>, score_some<1>);
  for (int64_t head = 0; head < all; ++head) soften(group, head);
  over_tokens(group, mix_some<4>, mix_some<1>);
  finish(group, static_cast<uint16_t*>(args.out) + offset);
}

}  // namespace vlm

#endif
