// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/paged_attention.h"

namespace vlm {

struct AttentionShape {
  int64_t rows, heads, kv_heads, head_dim, longest, window;
};

/// Odd and even ones: single elements, sizes that are no multiple of a vector, groups, windows,
/// long pasts.
inline std::vector<AttentionShape> attention_shapes() {
  return {{1, 1, 1, 1, 1, 0},     {1, 1, 1, 7, 3, 0},    {3, 4, 2, 16, 33, 0},
          {5, 6, 3, 20, 17, 4},   {2, 8, 1, 64, 257, 0}, {7, 12, 4, 80, 129, 50},
          {4, 32, 8, 128, 65, 1}, {2, 4, 4, 256, 40, 0}, {1, 2, 2, 33, 1000, 999},
          {2, 14, 2, 64, 200, 0}, {1, 5, 1, 96, 70, 9}};
}

inline std::vector<uint16_t> narrow_to_bfloat16(const std::vector<float>& values) {
  std::vector<uint16_t> narrow;
  for (float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    narrow.push_back(static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16));
  }
  return narrow;
}

inline std::vector<float> widen_bfloat16(const std::vector<uint16_t>& narrow) {
  std::vector<float> values;
  for (uint16_t half : narrow) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    values.push_back(value);
  }
  return values;
}

/// Random tensors of one shape, sequences of unequal length scattered over a cache whose other
/// slots hold NaN: reading one of them shows.
struct AttentionCase {
  explicit AttentionCase(const AttentionShape& s) : shape(s), stride(s.longest + 3) {
    std::mt19937 random(static_cast<uint32_t>(s.rows * 1000 + s.head_dim));
    std::normal_distribution<float> normal;
    slots = s.rows * s.longest + 5;
    q.resize(static_cast<size_t>(s.rows * s.heads * s.head_dim));
    for (float& value : q) value = normal(random);
    k.assign(static_cast<size_t>(slots * s.kv_heads * s.head_dim), NAN);
    v = k;
    std::vector<int32_t> free;
    for (int32_t slot = 0; slot < slots; ++slot) free.push_back(slot);
    std::shuffle(free.begin(), free.end(), random);
    table.assign(static_cast<size_t>(s.rows * stride), -1);
    const int64_t width = s.kv_heads * s.head_dim;
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t length = row == 0 ? s.longest : 1 + static_cast<int64_t>(random() % s.longest);
      lengths.push_back(static_cast<int32_t>(length));
      for (int64_t t = 0; t < length; ++t) {
        const int32_t slot = free.back();
        free.pop_back();
        table[static_cast<size_t>(row * stride + t)] = slot;
        for (int64_t i = slot * width; i < (slot + 1) * width; ++i) {
          k[static_cast<size_t>(i)] = normal(random);
          v[static_cast<size_t>(i)] = normal(random);
        }
      }
    }
  }

  void round_to_bfloat16() {
    for (auto* values : {&q, &k, &v}) *values = widen_bfloat16(narrow_to_bfloat16(*values));
  }

  PagedAttentionArgs args() const {
    PagedAttentionArgs a;
    a.q = q.data();
    a.k_cache = k.data();
    a.v_cache = v.data();
    a.slot_table = table.data();
    a.table_stride = stride;
    a.lengths = lengths.data();
    a.rows = shape.rows;
    a.heads = shape.heads;
    a.kv_heads = shape.kv_heads;
    a.head_dim = shape.head_dim;
    a.window = shape.window;
    a.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    return a;
  }

  AttentionShape shape;
  int64_t stride;
  int64_t slots = 0;
  std::vector<float> q, k, v;
  std::vector<int32_t> table, lengths;
};

}  // namespace vlm
