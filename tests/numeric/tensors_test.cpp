// SPDX-License-Identifier: LGPL-2.1-or-later
// Tensors of a file as the stages get them: the values that libtorch's conversions give, the bytes
// that packing float32 weights gives, whatever the file holds.
#include "loader/tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "layers/linear.h"
#include "numeric/stored_tensors.h"

namespace vlm {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

// Of several pieces, the last one short.
const std::vector<int64_t> kShape = {1001, 2100};

// A checkpoint of one matrix.
test::StoredTensors stored_matrix(const at::Tensor& values) {
  return test::StoredTensors({{"matrix.weight", values}});
}

TEST(TensorSource, converts_as_libtorch_does) {
  const at::Tensor values = at::randn(kShape);
  for (const at::ScalarType from : kTypes) {
    const at::Tensor stored = values.to(from);
    const test::StoredTensors file = stored_matrix(stored);
    for (const at::ScalarType to : kTypes) {
      TensorSource source = file.source(to);
      const at::Tensor taken = source.take("matrix.weight", kShape);
      EXPECT_EQ(taken.scalar_type(), to);
      EXPECT_TRUE(taken.equal(stored.to(to))) << from << " to " << to;
    }
  }
}

TEST(TensorSource, what_has_the_type_already_is_the_files_own) {
  const test::StoredTensors file = stored_matrix(at::randn({7, 5}));
  TensorSource source = file.source(at::kFloat);
  EXPECT_EQ(source.take("matrix.weight", {7, 5}).const_data_ptr(),
            file.weights().find("matrix.weight")->data);
}

TEST(TensorSource, made_weights_lie_in_large_pages_where_there_are_any) {
  const test::StoredTensors file = stored_matrix(at::randn({7, 5}));
  TensorSource source = file.source(at::kBFloat16);
  EXPECT_EQ(HugeMemory::holds(source.take("matrix.weight", {7, 5})), HugeMemory::available());
}

TEST(TensorSource, packed_weights_are_those_of_the_stored_values) {
  const at::Tensor values = at::randn(kShape);
  for (const at::ScalarType from : kTypes) {
    const at::Tensor stored = values.to(from), wide = stored.to(at::kFloat);
    const test::StoredTensors file = stored_matrix(stored);
    for (const PackedFormat format : {PackedFormat::kInt8, PackedFormat::kInt4}) {
      TensorSource source = file.source(at::kBFloat16);
      const Linear linear(source, {{"matrix", kShape[0]}}, kShape[1], false, Packing{format});
      const PackedShape shape = {format, kShape[0], kShape[1]};
      std::vector<std::byte> wanted(static_cast<size_t>(shape.bytes()));
      pack_rows(shape, wide.const_data_ptr<float>(), kShape[0], wanted.data());
      EXPECT_EQ(std::memcmp(linear.gpu_matrix().weights, wanted.data(), wanted.size()), 0)
          << from << (format == PackedFormat::kInt8 ? " to int8" : " to int4");
    }
  }
}

}  // namespace
}  // namespace vlm
