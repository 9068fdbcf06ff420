// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/matvec_kernels.h"
#include "kernels/packed_matrix.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;
constexpr int64_t kWeightsPerTask = 1 << 15;
constexpr int64_t kInputsPerTask = 1 << 15;  // of x that one thread lays out
constexpr int64_t kTileBytes = 1 << 14;

// x in the order in which the kernels meet the weights (matvec_kernels.h), in memory that is there
// already where it is large enough.
void lay_out_wide(const PackedShape& shape, const float* x, MatVecInput& input) {
  input.wide.assign(static_cast<size_t>((shape.padded_inputs() + 15) / 16 * 16), 0);
  for (int64_t i = 0; i < shape.inputs; ++i) {
    input.wide[static_cast<size_t>(i / 16 * 16 + i % 2 * 8 + i % 16 / 2)] = x[i];
  }
}

// The largest of the row without its signs; what is no number is larger than all that are.
VLM_INLINE inline float largest_of(const float* x, int64_t size) {
  uint32_t lanes[16] = {}, most = 0;
  const auto bits = [&](int64_t i) VLM_INLINE {
    uint32_t value;
    std::memcpy(&value, x + i, sizeof value);
    return value & 0x7FFFFFFFu;
  };
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int64_t lane = 0; lane < 16; ++lane) lanes[lane] = std::max(lanes[lane], bits(i + lane));
  }
  for (; i < size; ++i) most = std::max(most, bits(i));
  for (const uint32_t lane : lanes) most = std::max(most, lane);
  float largest;
  std::memcpy(&largest, &most, sizeof largest);
  return largest;
}

// Up to a group of x as whole numbers of `inverse`, and zeros.
VLM_INLINE inline void round_group(const float* x, int64_t count, float inverse,
                                   int16_t (&out)[kGroup]) {
  // Added and taken away again it leaves a whole number, the nearest one.
  constexpr float kShift = 0x1.8p23f;
  for (int64_t k = 0; k < count; ++k) {
    out[k] = static_cast<int16_t>(static_cast<int32_t>(x[k] * inverse + kShift - kShift));
  }
  for (int64_t k = count; k < kGroup; ++k) out[k] = 0;
}

// Even values, then the odd ones, and what the weights' offset adds to the group's sum.
VLM_INLINE inline void split_group(const int16_t (&group)[kGroup], int16_t* to, float* shift) {
  int32_t sum = 0;
  for (int64_t k = 0; k < kGroup; ++k) sum += group[k];
  for (int64_t k = 0; k < kGroup / 2; ++k) to[k] = group[2 * k];
  for (int64_t k = 0; k < kGroup / 2; ++k) to[kGroup / 2 + k] = group[2 * k + 1];
  *shift = static_cast<float>(-8 * sum);
}

VLM_INLINE inline void round_row(const PackedShape& shape, const float* x, MatVecInput& input) {
  const int64_t padded = shape.padded_inputs();
  const bool split = shape.format == PackedFormat::kInt4;
  const float largest = largest_of(x, shape.inputs);
  const bool finite = largest <= std::numeric_limits<float>::max();
  // What is no number makes every sum of the row none either, through the scale.
  input.scale = finite ? largest / kMatVecTop : std::numeric_limits<float>::quiet_NaN();
  const float inverse = std::isnormal(input.scale) ? 1 / input.scale : 0;
  const int64_t inputs = finite ? shape.inputs : 0;
  input.values.resize(static_cast<size_t>(padded));
  if (split) input.group_shifts.resize(static_cast<size_t>(padded / kGroup));
  int16_t* to = input.values.data();
  for (int64_t first = 0; first < padded; first += kGroup, to += kGroup) {
    int16_t group[kGroup];
    const int64_t at = std::min(first, inputs);
    round_group(x + at, std::min(kGroup, inputs - at), inverse, group);
    if (split) {
      split_group(group, to, input.group_shifts.data() + first / kGroup);
    } else {
      std::copy_n(group, kGroup, to);
    }
  }
}

void lay_out_rounded(const PackedShape& shape, const float* x, MatVecInput& input) {
  with_vectors([&]() VLM_INLINE { round_row(shape, x, input); });
}

class PlainRows final : public LaidOutRows {
 public:
  explicit PlainRows(const MatVecKernels& kernels) : kernels_(kernels) {}

  void reset(PackedFormat format, int64_t inputs, int64_t rows, const float*) override {
    shape_ = {format, 0, inputs};
    rows_ = rows;
    if (static_cast<size_t>(rows) > inputs_.size()) inputs_.resize(static_cast<size_t>(rows));
    const auto padded = static_cast<size_t>(shape_.padded_inputs());
    for (MatVecInput& input : inputs_) {
      if (format == PackedFormat::kBFloat16) {
        input.wide.reserve(padded + kGroup);
        continue;
      }
      input.values.reserve(padded);
      if (format == PackedFormat::kInt4) input.group_shifts.reserve(padded / kGroup);
    }
  }

  void lay_out(int64_t row, const float* x) override {
    const auto lay_out = shape_.format == PackedFormat::kBFloat16 ? lay_out_wide : lay_out_rounded;
    lay_out(shape_, x, inputs_[static_cast<size_t>(row)]);
  }

  void multiply(const MatVecPart& part) const override {
    // So many outputs stay in the innermost cache while all rows pass over them.
    const int64_t tile =
        std::max<int64_t>(1, kTileBytes / std::max<int64_t>(1, shape_.row_bytes()));
    for (int64_t first = part.begin; first < part.end; first += tile) {
      const int64_t last = std::min(part.end, first + tile);
      for (int64_t row = 0; row < rows_; row += kMatVecRows) {
        const int64_t count = std::min<int64_t>(kMatVecRows, rows_ - row);
        const MatVecTask task{part.shape,           part.weights,
                              inputs_.data() + row, part.y + row * part.y_stride,
                              part.y_stride,        part.begin};
        kernels_.of(shape_.format)[static_cast<size_t>(count - 1)](task, first, last);
      }
    }
  }

 private:
  const MatVecKernels& kernels_;
  PackedShape shape_;
  int64_t rows_ = 0;
  std::vector<MatVecInput> inputs_;
};

std::unique_ptr<LaidOutRows> make_portable_rows() {
  return std::make_unique<PlainRows>(portable_matvec_kernels());
}

#if defined(__x86_64__)
std::unique_ptr<LaidOutRows> make_avx2_rows() {
  return std::make_unique<PlainRows>(avx2_matvec_kernels());
}
#endif

template <auto kMakeRows>
void multiply(const MatVecArgs& args) {
  if (args.rows == 0) return;
  const PackedShape& shape = args.shape;
  const std::unique_ptr<LaidOutRows> rows = kMakeRows();
  rows->reset(shape.format, shape.inputs, args.rows, args.x);
  const int64_t per_row = std::max<int64_t>(1, shape.inputs);
  at::parallel_for(0, args.rows, std::max<int64_t>(1, kInputsPerTask / per_row),
                   [&](int64_t begin, int64_t end) {
                     for (; begin < end; ++begin) {
                       rows->lay_out(begin, args.x + begin * shape.inputs);
                     }
                   });
  const int64_t grain = std::max<int64_t>(1, kWeightsPerTask / per_row);
  at::parallel_for(0, shape.outputs, grain, [&](int64_t begin, int64_t end) {
    rows->multiply({shape, args.weights, begin, end, args.y + begin, shape.outputs});
  });
}

template <auto kMakeRows>
MatVecFamily family(const char* name) {
  return {name, multiply<kMakeRows>, kMakeRows};
}

}  // namespace

const std::vector<MatVecFamily>& matvec_families() {
  static const std::vector<MatVecFamily> families = [] {
    std::vector<MatVecFamily> able;
#if defined(__x86_64__)
    if (has_avx512_bfloat16()) {
      able.push_back(family<make_avx512_bfloat16_rows>("avx512-bfloat16"));
    }
    if (has_avx512()) able.push_back(family<make_avx512_rows>("avx512"));
    if (has_avx2()) able.push_back(family<make_avx2_rows>("avx2"));
#endif
    able.push_back(family<make_portable_rows>("portable"));
    return able;
  }();
  return families;
}

void matvec_cpu(const MatVecArgs& args) {
  static const MatVecFamily& best = matvec_families().front();
  best.product(args);
}

}  // namespace vlm
