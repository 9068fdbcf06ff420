// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/matvec_kernels.h"
#include "kernels/packed_matrix.h"

namespace vlm {
namespace {

constexpr int64_t kGroup = PackedShape::kGroup;
constexpr int64_t kWeightsPerTask = 1 << 15;
constexpr int64_t kTileBytes = 1 << 14;

// x in the order in which the kernels meet the weights (matvec_kernels.h).
MatVecInput make_input(const PackedShape& shape, const float* x) {
  const int64_t padded = shape.padded_inputs();
  MatVecInput input;
  if (shape.format == PackedFormat::kBFloat16) {
    input.wide.assign(static_cast<size_t>((padded + 15) / 16 * 16), 0);
    for (int64_t i = 0; i < shape.inputs; ++i) {
      input.wide[static_cast<size_t>(i / 16 * 16 + i % 2 * 8 + i % 16 / 2)] = x[i];
    }
    return input;
  }
  float top = 0;
  for (int64_t i = 0; i < shape.inputs; ++i) top = std::max(top, std::abs(x[i]));
  input.scale = top / kMatVecTop;
  const float inverse = std::isnormal(input.scale) ? 1 / input.scale : 0;
  input.values.assign(static_cast<size_t>(padded), 0);
  const bool split = shape.format == PackedFormat::kInt4;
  if (split) input.group_shifts.assign(static_cast<size_t>(padded / kGroup), 0);
  for (int64_t i = 0; i < shape.inputs; ++i) {
    // What is no number makes every sum of the row none either, through the scale.
    const float rounded = std::isfinite(x[i]) ? std::nearbyint(x[i] * inverse) : 0;
    if (!std::isfinite(x[i])) input.scale = x[i];
    const int64_t in_group = i % kGroup;
    const int64_t at = split ? i - in_group + in_group % 2 * 16 + in_group / 2 : i;
    input.values[static_cast<size_t>(at)] = static_cast<int16_t>(rounded);
    if (split) input.group_shifts[static_cast<size_t>(i / kGroup)] -= 8 * rounded;
  }
  return input;
}

void run(const MatVecArgs& args, const MatVecKernels& kernels) {
  std::vector<MatVecInput> inputs;
  for (int64_t row = 0; row < args.rows; ++row) {
    inputs.push_back(make_input(args.shape, args.x + row * args.shape.inputs));
  }
  const PackedShape& shape = args.shape;
  const int64_t grain = std::max<int64_t>(1, kWeightsPerTask / std::max<int64_t>(1, shape.inputs));
  // So many outputs stay in the innermost cache while all rows pass over them.
  const int64_t tile = std::max<int64_t>(1, kTileBytes / std::max<int64_t>(1, shape.row_bytes()));
  at::parallel_for(0, shape.outputs, grain, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += tile) {
      const int64_t last = std::min(end, first + tile);
      for (int64_t row = 0; row < args.rows; row += kMatVecRows) {
        const int64_t count = std::min<int64_t>(kMatVecRows, args.rows - row);
        const MatVecTask task{shape, args.weights, inputs.data() + row,
                              args.y + row * shape.outputs};
        kernels.of(shape.format)[static_cast<size_t>(count - 1)](task, first, last);
      }
    }
  });
}

void matvec_portable(const MatVecArgs& args) {
  run(args, portable_matvec_kernels());
}

#if defined(__x86_64__)
void matvec_avx2(const MatVecArgs& args) {
  run(args, avx2_matvec_kernels());
}
#endif

}  // namespace

const std::vector<MatVecFamily>& matvec_families() {
  static const std::vector<MatVecFamily> families = [] {
    std::vector<MatVecFamily> able;
#if defined(__x86_64__)
    if (has_avx512_bfloat16()) able.push_back({"avx512-bfloat16", matvec_avx512_bfloat16});
    if (has_avx512()) able.push_back({"avx512", matvec_avx512});
    if (has_avx2()) able.push_back({"avx2", matvec_avx2});
#endif
    able.push_back({"portable", matvec_portable});
    return able;
  }();
  return families;
}

void matvec_cpu(const MatVecArgs& args) {
  static const MatVecFamily& best = matvec_families().front();
  best.product(args);
}

}  // namespace vlm
