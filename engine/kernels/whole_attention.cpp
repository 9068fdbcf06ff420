// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/whole_attention.h"

#include "base/ceil_div.h"
#include "kernels/cpu.h"
#include "kernels/product.h"

#if defined(__x86_64__)

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/avx512.h"
#include "kernels/lanes.h"
#include "kernels/product_tiles.h"
#include "kernels/shares.h"

// Both products of attention are blocks of product_tiles.h: scores are keys ("weights") times a
// panel of queries ("x"), and results are values, turned, times the softmax's weights. So the lanes
// of a register are queries throughout, and the softmax needs no sums across lanes.

namespace vlm {

using namespace tiles;

namespace {

// Keys that a panel of queries meets before what it has so far is scaled again: their scores and
// weights stay in the L2 cache.
constexpr int64_t kKeysAtOnce = 512;
// Instead of a score that may not be seen: so low that its weight is nothing, and a number, so that
// differences are.
constexpr float kUnseen = -1e30F;
constexpr const Unit& kUnit = kAvx512;

template <typename T>
T* at_byte(const at::Tensor& memory, int64_t byte) {
  return reinterpret_cast<T*>(static_cast<std::byte*>(memory.mutable_data_ptr()) + byte);
}

// What a thread has of one panel of queries.
struct Panel {
  std::byte* x;        // queries, laid out
  std::byte* weights;  // of the softmax, laid out as x is
  float* scores;       // [spans of keys][kSums]
  float* sums;         // [spans of head_dim][kSums]
  uint16_t* rows;      // [kSpan][padded head_dim]
  std::array<float, kSpan> most, total;
};

inline float* scores_of(const Panel& panel, int64_t key, int64_t tile) {
  return panel.scores + sums_at(key, tile);
}

// Of 16 queries from row `query` on, the scores of keys [first, first + count) that they may not
// see.
VLM_AVX512 void hide(const WholeAttentionArgs& args, const Panel& panel, int64_t query,
                     int64_t tile, int64_t first, int64_t count) {
  const __m512i rows =
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(query)),
                       _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  const __m512 unseen = _mm512_set1_ps(kUnseen);
  const bool windowed = args.window > 0 && args.causal;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t key = first + i;
    __mmask16 hidden = key >= args.rows ? 0xFFFF : 0;
    const __m512i keys = _mm512_set1_epi32(static_cast<int>(key));
    if (args.causal) hidden |= _mm512_cmplt_epi32_mask(rows, keys);
    if (windowed) {
      hidden |= _mm512_cmpge_epi32_mask(
          rows, _mm512_add_epi32(keys, _mm512_set1_epi32(static_cast<int>(args.window))));
    }
    _mm512_mask_storeu_ps(scores_of(panel, i, tile), hidden, unseen);
  }
}

VLM_AVX512 VLM_INLINE inline __m512 exponential_of(__m512 x) {
  auto lanes = reinterpret_cast<Lanes<16>>(x);
  exponential<16>(lanes);
  return reinterpret_cast<__m512>(lanes);
}

// Scores of `count` keys, whole spans, become weights; what is there of earlier keys is scaled.
VLM_AVX512_BFLOAT16 void soften(const WholeAttentionArgs& args, Panel& panel, int64_t tile,
                                int64_t count, int64_t dims, bool first) {
  const __m512 scale = _mm512_set1_ps(args.scale);
  __m512 most = _mm512_set1_ps(2 * kUnseen);
  for (int64_t i = 0; i < count; ++i) {
    most = _mm512_max_ps(most, _mm512_loadu_ps(scores_of(panel, i, tile)));
  }
  most = _mm512_mul_ps(most, scale);
  __m512 total = _mm512_setzero_ps();
  if (!first) {
    const __m512 before = _mm512_loadu_ps(&panel.most[tile * kSide]);
    most = _mm512_max_ps(most, before);
    const __m512 factor = exponential_of(_mm512_sub_ps(before, most));
    total = _mm512_mul_ps(factor, _mm512_loadu_ps(&panel.total[tile * kSide]));
    for (int64_t dim = 0; dim < dims; ++dim) {
      float* sums = panel.sums + sums_at(dim, tile);
      _mm512_storeu_ps(sums, _mm512_mul_ps(factor, _mm512_loadu_ps(sums)));
    }
  }
  const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (int64_t i = 0; i < count; i += 2) {
    const float* scores = scores_of(panel, i, tile);
    const __m512 even = exponential_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores), scale, most));
    const __m512 odd =
        exponential_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + kSide), scale, most));
    total = _mm512_add_ps(total, _mm512_add_ps(even, odd));
    const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    _mm512_storeu_si512(
        panel.weights + i / kDepth * kStepBytes + tile * kTileBytes + i % kDepth / 2 * kRowBytes,
        _mm512_permutexvar_epi16(pairs, both));
  }
  _mm512_storeu_ps(&panel.most[tile * kSide], most);
  _mm512_storeu_ps(&panel.total[tile * kSide], total);
}

// Rounds the results of up to 16 queries of a tile; `out`: the first one's.
VLM_AVX512_BFLOAT16 void store_tile(const WholeAttentionArgs& args, const Panel& panel,
                                    int64_t tile, int64_t count, uint16_t* out) {
  const __m512 by = _mm512_div_ps(_mm512_set1_ps(1), _mm512_loadu_ps(&panel.total[tile * kSide]));
  for (int64_t dim = 0; dim < args.head_dim; dim += kSide) {
    const float* sums = panel.sums + sums_at(dim, tile);
    __m512i rows[kSide];
    VLM_UNROLL
    for (int64_t i = 0; i < kSide; ++i) {
      rows[i] = _mm512_castps_si512(_mm512_mul_ps(by, _mm512_loadu_ps(sums + i * kSide)));
    }
    transpose(rows);
    const auto lanes = static_cast<__mmask16>(first_lanes(std::min(kSide, args.head_dim - dim)));
    for (int64_t i = 0; i < count; ++i) {
      const __m256bh halves = _mm512_cvtneps_pbh(_mm512_castsi512_ps(rows[i]));
      _mm256_mask_storeu_epi16(out + i * args.heads * args.head_dim + dim, lanes,
                               reinterpret_cast<__m256i>(halves));
    }
  }
}

// Of 32 rows from `from` on, 16 values each: rows become columns `stride` bytes apart.
VLM_AVX512 void turn_values(const uint16_t* from, int64_t row_stride, int64_t rows, int64_t values,
                            std::byte* out, int64_t stride) {
  const auto lanes = static_cast<__mmask16>(first_lanes(std::min(kSide, values)));
  __m512i pairs[kSide];
  VLM_UNROLL
  for (int64_t i = 0; i < kSide; ++i) {
    const auto row = [&](int64_t at) VLM_AVX512 {
      const __m256i halves = _mm256_maskz_loadu_epi16(at < rows ? lanes : __mmask16{0},
                                                      from + std::min(at, rows - 1) * row_stride);
      return _mm512_cvtepu16_epi32(halves);
    };
    pairs[i] = _mm512_or_si512(row(2 * i), _mm512_slli_epi32(row(2 * i + 1), 16));
  }
  transpose(pairs);
  VLM_UNROLL
  for (int64_t i = 0; i < kSide; ++i) _mm512_storeu_si512(out + i * stride, pairs[i]);
}

class Attention {
 public:
  explicit Attention(const WholeAttentionArgs& args) : args_(args) {
    keys_ = at::empty({args_.sequences * args_.kv_heads * key_bytes()}, at::kByte);
    values_ = at::empty({args_.sequences * args_.kv_heads * value_bytes()}, at::kByte);
    scratch_ = at::empty({at::get_num_threads() * scratch_bytes()}, at::kByte);
  }

  void run() {
    Shares heads(args_.sequences * args_.kv_heads, 1);
    heads.each([&](int64_t head) { lay_out(head); });
    // Where causal the last panels take longest, so they are the first.
    Shares panels(args_.sequences * args_.heads * panels_, 1);
    panels.spread([&] {
      kUnit.begin();
      for (Shares::Piece at = panels.claim(); at.count > 0; at = panels.claim()) {
        const int64_t head = at.first % (args_.sequences * args_.heads);
        attend(head, panels_ - 1 - at.first / (args_.sequences * args_.heads));
      }
      kUnit.end();
    });
  }

 private:
  // One line more, so that rows do not all meet in a few sets of the innermost cache.
  int64_t key_stride() const { return steps_ * kRowBytes + kRowBytes; }
  int64_t value_stride() const { return padded_rows_ * 2 + kRowBytes; }
  int64_t key_bytes() const { return padded_rows_ * key_stride(); }
  int64_t value_bytes() const { return steps_ * kDepth * value_stride(); }
  int64_t keys_at_once() const { return std::min(kKeysAtOnce, padded_rows_); }
  int64_t scratch_bytes() const {
    const int64_t floats = keys_at_once() * kSpan + steps_ * kSums;
    return steps_ * kStepBytes + keys_at_once() / kDepth * kStepBytes + floats * 4 +
           steps_ * kDepth * kSpan * 2;
  }

  // Keys and values of one head of one sequence.
  void lay_out(int64_t head) const {
    const int64_t first = head / args_.kv_heads * args_.rows;
    const int64_t dim = head % args_.kv_heads * args_.head_dim;
    auto* keys = at_byte<std::byte>(keys_, head * key_bytes());
    std::memset(keys, 0, static_cast<size_t>(key_bytes()));
    for (int64_t row = 0; row < args_.rows; ++row) {
      std::memcpy(keys + row * key_stride(), args_.k + (first + row) * args_.k_stride + dim,
                  static_cast<size_t>(args_.head_dim) * 2);
    }
    auto* values = at_byte<std::byte>(values_, head * value_bytes());
    for (int64_t row = 0; row < args_.rows; row += kSpan) {
      for (int64_t i = 0; i < steps_ * kDepth; i += kSide) {
        turn_values(args_.v + (first + row) * args_.v_stride + dim + i, args_.v_stride,
                    args_.rows - row, args_.head_dim - i, values + i * value_stride() + row * 2,
                    value_stride());
      }
    }
  }

  Panel panel_of_thread() const {
    Panel panel;
    panel.x = at_byte<std::byte>(scratch_, at::get_thread_num() * scratch_bytes());
    panel.weights = panel.x + steps_ * kStepBytes;
    panel.scores = reinterpret_cast<float*>(panel.weights + keys_at_once() / kDepth * kStepBytes);
    panel.sums = panel.scores + keys_at_once() * kSpan;
    panel.rows = reinterpret_cast<uint16_t*>(panel.sums + steps_ * kSums);
    return panel;
  }

  void take_queries(const Panel& panel, const uint16_t* q, int64_t count) const {
    const int64_t padded = steps_ * kDepth;
    for (int64_t row = 0; row < count; ++row) {
      uint16_t* to = panel.rows + row * padded;
      std::memcpy(to, q + row * args_.q_stride, static_cast<size_t>(args_.head_dim) * 2);
      std::fill(to + args_.head_dim, to + padded, uint16_t{0});
    }
    ProductArgs x;
    x.shape = {PackedFormat::kBFloat16, 0, padded};
    x.x = panel.rows;
    kUnit.layout.lay_out_x(x, 0, count, 0, steps_, panel.x);
  }

  // One panel of queries of one head of one sequence.
  void attend(int64_t head, int64_t index) const {
    const int64_t sequence = head / args_.heads, own = head % args_.heads;
    const int64_t kv_head = sequence * args_.kv_heads + own / (args_.heads / args_.kv_heads);
    const int64_t first = index * kSpan, count = std::min(kSpan, args_.queries - first);
    const int64_t query = args_.rows - args_.queries + first;
    const int64_t row = sequence * args_.queries + first;
    Panel panel = panel_of_thread();
    take_queries(panel, args_.q + row * args_.q_stride + own * args_.head_dim, count);
    const bool windowed = args_.causal && args_.window > 0;
    const int64_t oldest = windowed ? std::max<int64_t>(0, query - args_.window + 1) : 0;
    const int64_t end = args_.causal ? query + count : args_.rows;
    const int64_t begin = oldest / kSpan * kSpan;
    for (int64_t key = begin; key < end; key += keys_at_once()) {
      const int64_t keys = round_up(std::min(keys_at_once(), end - key), kSpan);
      meet(panel, kv_head, query, count, key, keys, key == begin);
    }
    uint16_t* out = args_.out + (row * args_.heads + own) * args_.head_dim;
    for (int64_t tile = 0; tile * kSide < count; ++tile) {
      store_tile(args_, panel, tile, std::min(kSide, count - tile * kSide),
                 out + tile * kSide * args_.heads * args_.head_dim);
    }
  }

  // Queries times keys [key, key + keys), and their values.
  void meet(Panel& panel, int64_t kv_head, int64_t query, int64_t count, int64_t key, int64_t keys,
            bool first) const {
    Block block{};
    block.row_tiles = ceil_div(count, kSide);
    block.weights_stride = key_stride();
    block.steps = steps_;
    block.x = panel.x;
    for (int64_t i = 0; i < keys; i += kSpan) {
      block.weights = at_byte<std::byte>(keys_, kv_head * key_bytes() + (key + i) * key_stride());
      block.sums = scores_of(panel, i, 0);
      kUnit.multiply(block);
    }
    for (int64_t tile = 0; tile < block.row_tiles; ++tile) {
      const int64_t from = query + tile * kSide;
      const bool all_seen = key + keys <= args_.rows &&
                            (!args_.causal || (key + keys <= from + 1 && args_.window == 0));
      if (!all_seen) hide(args_, panel, from, tile, key, keys);
      soften(args_, panel, tile, keys, steps_ * kDepth, first);
    }
    block.weights_stride = value_stride();
    block.steps = keys / kDepth;
    block.x = panel.weights;
    block.more = !first;
    for (int64_t i = 0; i < steps_; ++i) {
      block.weights = at_byte<std::byte>(
          values_, kv_head * value_bytes() + i * kSpan * value_stride() + key * 2);
      block.sums = panel.sums + sums_at(i * kSpan, 0);
      kUnit.multiply(block);
    }
  }

  const WholeAttentionArgs& args_;
  const int64_t panels_ = ceil_div(args_.queries, kSpan);
  const int64_t padded_rows_ = round_up(args_.rows, kSpan);
  const int64_t steps_ = ceil_div(args_.head_dim, kDepth);
  at::Tensor keys_, values_, scratch_;
};

}  // namespace

bool has_whole_attention() {
  return has_avx512_bfloat16() && !has_matrix_units();
}

void whole_attention_cpu(const WholeAttentionArgs& args) {
  if (args.queries > 0) Attention(args).run();
}

}  // namespace vlm

#else

namespace vlm {

bool has_whole_attention() {
  return false;
}

void whole_attention_cpu(const WholeAttentionArgs& /*args*/) {}

}  // namespace vlm

#endif
