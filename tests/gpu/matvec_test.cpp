// SPDX-License-Identifier: LGPL-2.1-or-later
// The GPU's products of few rows in every format and with everything that they do on the way,
// against double precision over the same weights.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>

#include "cuda/packed_index.h"
#include "gpu/gpu_case.h"
#include "kernels/activation.h"
#include "kernels/fused.h"

namespace vlm {
namespace {

struct Format {
  at::ScalarType type;
  std::optional<PackedFormat> packed;
};

// A matrix as the GPU has it, and the weights that it stands for.
struct Matrix {
  Matrix(const Format& format, int64_t outputs, int64_t inputs) : type(format.type) {
    const at::Tensor wide = at::randn({outputs, inputs}) * 0.05;
    bias = random_values({outputs}, type);
    gpu_bias = to_gpu(bias);
    view.bias = gpu_bias.const_data_ptr();
    view.outputs = outputs;
    view.inputs = inputs;
    if (!format.packed) {
      weights = to_gpu(wide.to(type));
      plain = wide.to(type).to(at::kDouble);
      view.weights = weights.const_data_ptr();
      return;
    }
    const PackedShape shape = {*format.packed, outputs, inputs};
    at::Tensor rows = at::empty({shape.bytes()}, at::kByte);
    auto* bytes = static_cast<std::byte*>(rows.mutable_data_ptr());
    pack_rows(shape, wide.const_data_ptr<float>(), outputs, bytes);
    plain = at::empty({outputs, inputs}, at::kFloat);
    unpack_rows(shape, bytes, outputs, plain.mutable_data_ptr<float>());
    plain = plain.to(at::kDouble);
    rows = to_gpu(rows);
    const auto options = rows.options();
    // Poisoned, so that what is not written shows.
    weights = at::full({outputs, gpu_row_bytes(shape.format, inputs)}, 0xFF, options);
    scales = at::full({outputs, gpu_scale_bytes(shape.format, inputs)}, 0xFF, options);
    EXPECT_TRUE(cuda_module()->repack(
        {rows.const_data_ptr(), weights.mutable_data_ptr(), scales.mutable_data_ptr(), shape},
        stream_of_tests()));
    view.weights = weights.const_data_ptr();
    view.scales = scales.const_data_ptr();
    view.packed = true;
    view.format = *format.packed;
  }

  at::Tensor product(const at::Tensor& x) const {
    return at::matmul(x.to(at::kDouble), plain.t()) + bias.to(at::kDouble);
  }

  at::ScalarType type;
  at::Tensor weights, scales, bias, gpu_bias;
  at::Tensor plain;  // double, on the CPU
  GpuMatrix view;
};

class GpuMatVec : public ::testing::TestWithParam<Format> {
 protected:
  GpuMatVecArgs args(const Matrix& matrix, const at::Tensor& x, const at::Tensor& out,
                     MatVecOutput output) const {
    GpuMatVecArgs args;
    args.matrix = matrix.view;
    args.x = x.const_data_ptr();
    args.out = out.mutable_data_ptr();
    args.rows = x.size(0);
    args.output = output;
    args.type = *kernel_type(GetParam().type);
    return args;
  }
  at::Tensor values(at::IntArrayRef shape) const { return random_values(shape, GetParam().type); }
  at::Tensor nothing(at::IntArrayRef shape) const {
    return to_gpu(at::full(shape, std::numeric_limits<double>::quiet_NaN(), GetParam().type));
  }
  static constexpr double kFloor = 2e-4;  // of float32 sums that cancel
};

TEST_P(GpuMatVec, is_the_product_for_any_number_of_rows) {
  for (const auto& [outputs, inputs, rows] :
       std::initializer_list<std::tuple<int64_t, int64_t, int64_t>>{{1, 8, 1},
                                                                    {17, 40, 2},
                                                                    {16, 128, 3},
                                                                    {100, 264, 5},
                                                                    {31, 4096, 8},
                                                                    {64, 1000, 9},
                                                                    {40, 2048, 16},
                                                                    {130, 328, 17},
                                                                    {48, 11008, 32}}) {
    const Matrix matrix(GetParam(), outputs, inputs);
    const at::Tensor x = values({rows, inputs}), there = to_gpu(x);
    const at::Tensor out = nothing({rows, outputs});
    ASSERT_TRUE(
        cuda_module()->matvec(args(matrix, there, out, MatVecOutput::kStore), stream_of_tests()));
    SCOPED_TRACE(std::to_string(outputs) + "x" + std::to_string(inputs) + " " +
                 std::to_string(rows));
    expect_close(out, matrix.product(x), 1, kFloor);
  }
}

TEST_P(GpuMatVec, a_row_does_not_depend_on_the_others) {
  const Matrix matrix(GetParam(), 70, 1024);
  const at::Tensor x = to_gpu(values({32, 1024}));
  const at::Tensor all = nothing({32, 70});
  ASSERT_TRUE(cuda_module()->matvec(args(matrix, x, all, MatVecOutput::kStore), stream_of_tests()));
  for (const int64_t rows : {1, 2, 8, 11, 16}) {
    const at::Tensor some = nothing({rows, 70});
    ASSERT_TRUE(cuda_module()->matvec(
        args(matrix, x.narrow(0, 0, rows), some, MatVecOutput::kStore), stream_of_tests()));
    EXPECT_TRUE((some == all.narrow(0, 0, rows)).all().item<bool>()) << rows;
  }
}

TEST_P(GpuMatVec, normalizes_on_the_way) {
  for (const int64_t rows : {1, 3, 4}) {
    for (const int64_t inputs : {64, 1032, 5120}) {
      const Matrix matrix(GetParam(), 50, inputs);
      const at::Tensor x = values({rows, inputs}), weight = values({inputs});
      const at::Tensor there = to_gpu(x), its_weight = to_gpu(weight), out = nothing({rows, 50});
      GpuMatVecArgs a = args(matrix, there, out, MatVecOutput::kStore);
      a.norm_weight = its_weight.const_data_ptr();
      a.eps = 1e-5f;
      ASSERT_TRUE(cuda_module()->matvec(a, stream_of_tests()));
      // A rounding of the norm that falls the other way moves the sum by a part of one weight.
      expect_close(out, matrix.product(rms_norm(x, weight, 1e-5)), 2, 0.02);
    }
  }
}

TEST_P(GpuMatVec, adds_to_what_is_there) {
  const Matrix matrix(GetParam(), 90, 512);
  const at::Tensor x = values({3, 512}), before = values({3, 90});
  const at::Tensor there = to_gpu(x), out = to_gpu(before);
  ASSERT_TRUE(
      cuda_module()->matvec(args(matrix, there, out, MatVecOutput::kAdd), stream_of_tests()));
  expect_close(out, before.to(at::kDouble) + matrix.product(x), 2, 0.02);
}

TEST_P(GpuMatVec, gives_logits_as_floats_of_the_type) {
  const Matrix matrix(GetParam(), 333, 512);
  const at::Tensor x = values({2, 512}), there = to_gpu(x);
  const at::Tensor out = to_gpu(at::full({2, 333}, -7, at::kFloat));
  ASSERT_TRUE(
      cuda_module()->matvec(args(matrix, there, out, MatVecOutput::kLogits), stream_of_tests()));
  expect_close(out.to(GetParam().type), matrix.product(x), 1, kFloor);
  EXPECT_TRUE((out == out.to(GetParam().type).to(at::kFloat)).all().item<bool>());
}

TEST_P(GpuMatVec, gates) {
  for (const int64_t inner : {8, 100, 256}) {
    const Matrix matrix(GetParam(), 2 * inner, 256);
    const at::Tensor x = values({5, 256}), there = to_gpu(x), out = nothing({5, inner});
    GpuMatVecArgs a = args(matrix, there, out, MatVecOutput::kGate);
    a.function = GateFunction::kSilu;
    ASSERT_TRUE(cuda_module()->matvec(a, stream_of_tests()));
    const at::Tensor both = matrix.product(x).to(GetParam().type);
    expect_close(out,
                 gated(both.narrow(1, 0, inner), both.narrow(1, inner, inner), Activation::kSilu),
                 3, 0.02);
  }
}

TEST_P(GpuMatVec, rotates_and_stores) {
  TextConfig config;
  config.heads = 4;
  config.kv_heads = 2;
  for (const int64_t dim : {4, 20, 64, 128}) {
    config.head_dim = dim;
    const Matrix matrix(GetParam(), 8 * dim, 320);
    const at::Tensor x = values({3, 320}), there = to_gpu(x), q = nothing({3, 4, dim});
    const at::Tensor cos = values({9, 1, dim}), sin = values({9, 1, dim});
    const at::Tensor angles = at::randint(9, {3}, at::kLong),
                     slots = at::tensor({6, 0, 3}, at::kLong);
    const at::Tensor c = to_gpu(cos), s = to_gpu(sin), n = to_gpu(angles), l = to_gpu(slots);
    const at::Tensor keys = nothing({7, 2, dim}), held = nothing({7, 2, dim});
    GpuMatVecArgs a = args(matrix, there, q, MatVecOutput::kRotate);
    a.target = rotate_target(config, c, s, n, l, keys, held);
    ASSERT_TRUE(cuda_module()->matvec(a, stream_of_tests()));
    const at::Tensor all = matrix.product(x).to(GetParam().type).view({3, 8, dim});
    const auto turned = [&](const at::Tensor& heads) {
      return rotate(heads, cos.index_select(0, angles), sin.index_select(0, angles));
    };
    expect_close(q, turned(all.narrow(1, 0, 4)), 2, 0.05);
    expect_close(keys.index_select(0, l), turned(all.narrow(1, 4, 2)), 2, 0.05);
    expect_close(held.index_select(0, l), all.narrow(1, 6, 2), 2, 0.02);
  }
}

TEST_P(GpuMatVec, unpacks_what_it_multiplies) {
  if (!GetParam().packed) GTEST_SKIP() << "not packed";
  for (const int64_t inputs : {8, 100, 264, 4096}) {
    const Matrix matrix(GetParam(), 19, inputs);
    const at::Tensor out = nothing({19, inputs});
    ASSERT_TRUE(cuda_module()->unpack(
        {matrix.view, out.mutable_data_ptr(), *kernel_type(GetParam().type)}, stream_of_tests()));
    expect_close(out, matrix.plain.to(GetParam().type), 0, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, GpuMatVec,
                         ::testing::Values(Format{at::kBFloat16, {}}, Format{at::kHalf, {}},
                                           Format{at::kBFloat16, PackedFormat::kInt8},
                                           Format{at::kHalf, PackedFormat::kInt8},
                                           Format{at::kBFloat16, PackedFormat::kInt4},
                                           Format{at::kHalf, PackedFormat::kInt4}),
                         [](const auto& name) {
                           return std::string(name.param.type == at::kHalf ? "float16"
                                                                           : "bfloat16") +
                                  (!name.param.packed                          ? ""
                                   : *name.param.packed == PackedFormat::kInt8 ? "_int8"
                                                                               : "_int4");
                         });

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  return vlm::run_gpu_tests(argc, argv);
}
