// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/matvec_kernels.h"

#include <algorithm>
#include <cstring>

#include "kernels/bfloat16.h"
#include "kernels/group_scale.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;

// Plain loops, which compilers turn into what vector instructions they know.

template <int kRows>
void bfloat16_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<uint16_t>(output);
    for (int row = 0; row < kRows; ++row) {
      const float* x = task.inputs[row].wide.data();
      float sum = 0;
      for (int64_t i = 0; i < task.shape.inputs; ++i) {
        sum += widen(w[i]) * x[i / 16 * 16 + i % 2 * 8 + i % 16 / 2];
      }
      task.result(row, output) = sum;
    }
  }
}

template <int kRows>
void int8_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<int8_t>(output);
    for (int row = 0; row < kRows; ++row) {
      const int16_t* x = task.inputs[row].values.data();
      float sum = 0;
      for (int64_t i = 0; i < task.shape.padded_inputs(); i += kGroup) {
        int32_t part = 0;
        for (int64_t k = 0; k < kGroup; ++k) part += int32_t{w[i + k]} * x[i + k];
        sum += static_cast<float>(part);
      }
      task.result(row, output) = sum * task.row_scale(output) * task.inputs[row].scale;
    }
  }
}

// The sum of one group's products.
int32_t add_group(const uint8_t* w, const int16_t* x) {
  constexpr int64_t kSteps = kGroup / Int4Words::kStride, kNext = 2 * kSteps;
  int32_t sum = 0;
  for (int64_t k = 0; k < kSteps; ++k) {
    const int32_t first = w[2 * k], second = w[2 * k + 1];
    sum += (first & 15) * x[k] + (first >> 4) * x[kNext + k] + (second & 15) * x[2 * kNext + k] +
           (second >> 4) * x[3 * kNext + k];
  }
  return sum;
}

template <int kRows>
void int4_portable(const MatVecTask& task, int64_t begin, int64_t end) {
  const PackedShape shape = task.shape;
  for (int64_t output = begin; output < end; ++output) {
    const auto* w = task.row<uint8_t>(output);
    for (int row = 0; row < kRows; ++row) {
      const MatVecInput& input = task.inputs[row];
      float sum = 0;
      for (int64_t first = 0; first < shape.padded_inputs(); first += kGroup) {
        const Int4Words& x = input.words[static_cast<size_t>(first / Int4Words::kInputs)];
        const int64_t group = first % Int4Words::kInputs / kGroup;
        const int32_t part =
            add_group(w + shape.value_at(first), x.values + first_value<Int4Words>(group));
        sum += static_cast<float>(part + x.shifts[group_place(group)]) *
               group_scale(shape, task.row(output), first);
      }
      task.result(row, output) = sum * input.scale;
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
