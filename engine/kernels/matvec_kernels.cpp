// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_kernels.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;

// Plain loops, which compilers turn into what vector instructions they know.

constexpr int kLanes = 16;  // of a sum in float32, since compilers must not sum in another order

// 16 weights, the even ones first. (The lower half of a word comes first wherever this runs.)
inline void widen_pairs(const uint16_t* from, float* to) {
  for (int k = 0; k < kLanes / 2; ++k) {
    uint32_t pair;
    std::memcpy(&pair, from + 2 * k, sizeof pair);
    const uint32_t even = pair << 16, odd = pair & 0xFFFF0000u;
    std::memcpy(to + k, &even, sizeof even);
    std::memcpy(to + kLanes / 2 + k, &odd, sizeof odd);
  }
}

template <int kRows>
void bfloat16_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  const int64_t inputs = task.shape.inputs, whole = inputs / kLanes * kLanes;
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<uint16_t>(output);
    float sums[kRows][kLanes] = {}, wide[kLanes];
    const auto add = [&](const uint16_t* from, int64_t at) {
      widen_pairs(from, wide);
      for (int row = 0; row < kRows; ++row) {
        const float* x = task.inputs[row].wide.data() + at;
        for (int k = 0; k < kLanes; ++k) sums[row][k] += wide[k] * x[k];
      }
    };
    for (int64_t i = 0; i < whole; i += kLanes) add(w + i, i);
    if (whole < inputs) {
      uint16_t tail[kLanes] = {};
      std::copy(w + whole, w + inputs, tail);
      add(tail, whole);
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) = std::accumulate(sums[row], sums[row] + kLanes, 0.0F);
    }
  }
}

template <int kRows>
void int8_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<int8_t>(output);
    float sums[kRows] = {};
    for (int64_t i = 0; i < task.shape.padded_inputs(); i += kGroup) {
      int16_t wide[kGroup];
      for (int64_t k = 0; k < kGroup; ++k) wide[k] = w[i + k];
      for (int row = 0; row < kRows; ++row) {
        const int16_t* x = task.inputs[row].values.data() + i;
        int32_t part = 0;
        for (int64_t k = 0; k < kGroup; ++k) part += int32_t{wide[k]} * x[k];
        sums[row] += static_cast<float>(part);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) =
          sums[row] * int8_scale(task.shape, task.row(output)) * task.inputs[row].scale;
    }
  }
}

constexpr int64_t kStride = Int4Words::kStride, kSteps = kGroup / kStride;

// A group's levels in the order of Int4Words.
inline void unpack_group(const std::byte* w, int16_t* levels) {
  uint16_t fours[kSteps];
  std::memcpy(fours, w, sizeof fours);
  for (int64_t i = 0; i < kStride; ++i) {
    for (int64_t k = 0; k < kSteps; ++k) {
      levels[i * kSteps + k] = static_cast<int16_t>(fours[k] >> (4 * i) & 15);
    }
  }
}

inline int32_t multiply_group(const int16_t* levels, const int16_t* x) {
  int16_t own[kGroup];
  for (int64_t i = 0; i < kStride; ++i)
    std::memcpy(own + i * kSteps, x + 2 * i * kSteps, kSteps * 2);
  int32_t sum = 0;
  for (int64_t k = 0; k < kGroup; ++k) sum += int32_t{levels[k]} * own[k];
  return sum;
}

template <int kRows>
void int4_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  constexpr int64_t kRunGroups = PackedShape::kRun / kGroup;
  const int64_t groups = task.shape.padded_inputs() / kGroup;
  const std::byte* w = task.row(begin);
  for (int64_t output = begin; output < end; ++output) {
    float sums[kRows] = {};
    for (int64_t first = 0; first < groups; first += kRunGroups) {
      const int64_t last = std::min(groups, first + kRunGroups);
      const std::byte* scales = w;
      w += (last - first) * static_cast<int64_t>(sizeof(uint16_t));
      for (int64_t group = first; group < last; ++group, w += kGroup / 2) {
        int16_t levels[kGroup];
        unpack_group(w, levels);
        uint16_t scale;
        std::memcpy(&scale, scales + (group - first) * sizeof scale, sizeof scale);
        const int64_t own = group % kInt4Groups;
        for (int row = 0; row < kRows; ++row) {
          const Int4Words& x = task.inputs[row].words[static_cast<size_t>(group / kInt4Groups)];
          const int32_t sum = multiply_group(levels, x.values + first_value<Int4Words>(own));
          sums[row] += static_cast<float>(sum + x.shifts[group_place(own)]) * widen(scale);
        }
      }
    }
    for (int row = 0; row < kRows; ++row) {
      task.result(row, output) = sums[row] * task.inputs[row].scale;
    }
  }
}

constexpr MatVecKernels kPortable = {
    {bfloat16_portable<1>, bfloat16_portable<2>, bfloat16_portable<3>, bfloat16_portable<4>},
    {int8_portable<1>, int8_portable<2>, int8_portable<3>, int8_portable<4>},
    {int4_portable<1>, int4_portable<2>, int4_portable<3>, int4_portable<4>}};

}  // namespace

const MatVecKernels& portable_matvec_kernels() {
  return kPortable;
}

}  // namespace vlm
