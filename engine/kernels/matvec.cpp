// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/matvec_kernels.h"
#include "kernels/packed_matrix.h"
#include "kernels/row_scale.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;
constexpr int64_t kWeightsPerTask = 1 << 15;
constexpr int64_t kInputsPerTask = 1 << 15;  // of x that one thread lays out
constexpr int64_t kTileBytes = 1 << 14;

// x in the order in which the kernels meet the weights (matvec_kernels.h), in memory that is there
// already.
void lay_out_wide(const PackedShape& shape, const float* x, MatVecInput& input) {
  // Of the last ones not all are met.
  std::fill(input.wide.end() - std::min<int64_t>(16, std::ssize(input.wide)), input.wide.end(),
            0.0F);
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

// A row in 16 bits: calls `put(group, values)`, returns their scale.
template <typename Put>
VLM_INLINE inline float round_row(const PackedShape& shape, const float* x, const Put& put) {
  const RowScale row(largest_of(x, shape.inputs), kMatVecTop);
  const int64_t inputs = row.finite ? shape.inputs : 0;
  for (int64_t group = 0; group < shape.padded_inputs() / kGroup; ++group) {
    const int64_t at = std::min(group * kGroup, inputs);
    int16_t values[kGroup];
    round_group(x + at, std::min(kGroup, inputs - at), row.inverse, values);
    put(group, values);
  }
  return row.scale;
}

VLM_INLINE inline void lay_out_values(const PackedShape& shape, const float* x,
                                      MatVecInput& input) {
  int16_t* to = input.values.data();
  input.scale = round_row(shape, x, [&](int64_t group, const int16_t(&values)[kGroup]) VLM_INLINE {
    std::copy_n(values, kGroup, to + group * kGroup);
  });
}

// The group's values, and what the weights' offset adds to its sum.
VLM_INLINE inline void put_group(const int16_t (&values)[kGroup], int64_t group, Int4Words& to) {
  constexpr int64_t kStride = Int4Words::kStride, kSteps = kGroup / kStride;
  int32_t sum = 0;
  for (int64_t k = 0; k < kGroup; ++k) sum += values[k];
  to.shifts[group_place(group)] = -8 * sum;
  int16_t* first = to.values + first_value<Int4Words>(group);
  for (int64_t offset = 0; offset < kStride; ++offset) {
    for (int64_t k = 0; k < kSteps; ++k) {
      first[offset * 2 * kSteps + k] = values[k * kStride + offset];
    }
  }
}

VLM_INLINE inline void lay_out_words(const PackedShape& shape, const float* x, MatVecInput& input) {
  Int4Words* to = input.words.data();
  input.scale = round_row(shape, x, [&](int64_t group, const int16_t(&values)[kGroup]) VLM_INLINE {
    put_group(values, group % kInt4Groups, to[group / kInt4Groups]);
  });
}

class PlainRows final : public LaidOutRows {
 public:
  explicit PlainRows(const MatVecKernels& kernels) : kernels_(kernels) {}

  void reset(const RowsShape& shape, const float*) override {
    shape_ = {shape.format, 0, shape.inputs};
    in_bytes_ = shape.in_bytes && kernels_.takes_bytes(shape.format);
    rows_ = shape.rows;
    if (static_cast<size_t>(rows_) > inputs_.size()) inputs_.resize(static_cast<size_t>(rows_));
    const auto padded = static_cast<size_t>(shape_.padded_inputs());
    for (MatVecInput& input : inputs_) {
      switch (shape.format) {
        case PackedFormat::kBFloat16:
          input.wide.resize((padded + 15) / 16 * 16);
          break;
        case PackedFormat::kInt8:
          input.values.resize(padded);
          break;
        case PackedFormat::kInt4:
          if (in_bytes_) {
            input.bytes.resize(padded / kInt4Inputs);
          } else {
            input.words.resize(padded / kInt4Inputs);
          }
          break;
      }
    }
  }

  void lay_out(int64_t row, const float* x) override {
    MatVecInput& input = inputs_[static_cast<size_t>(row)];
    if (shape_.format == PackedFormat::kBFloat16) return lay_out_wide(shape_, x, input);
    if (in_bytes_) return kernels_.lay_out_bytes(shape_, x, input);
    with_vectors([&]() VLM_INLINE {
      if (shape_.format == PackedFormat::kInt8) {
        lay_out_values(shape_, x, input);
      } else {
        lay_out_words(shape_, x, input);
      }
    });
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
        kernels_.of(shape_.format, in_bytes_)[static_cast<size_t>(count - 1)](task, first, last);
      }
    }
  }

 private:
  const MatVecKernels& kernels_;
  PackedShape shape_;
  bool in_bytes_ = false;
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
  rows->reset({shape.format, shape.inputs, args.rows, args.in_bytes}, args.x);
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
MatVecFamily family(const char* name, bool takes_bytes = false) {
  return {name, multiply<kMakeRows>, kMakeRows, takes_bytes};
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
    if (has_avx2()) {
      able.push_back(
          family<make_avx2_rows>("avx2", avx2_matvec_kernels().takes_bytes(PackedFormat::kInt4)));
    }
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
