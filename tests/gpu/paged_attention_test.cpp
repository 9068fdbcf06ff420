// SPDX-License-Identifier: LGPL-2.1-or-later
// Exits with 77, which means skipped, where there is no GPU.
#include "kernels/paged_attention.h"

#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include "base/device.h"
#include "base/failure.h"
#include "cuda/module.h"
#include "numeric/attention_case.h"

namespace vlm {
namespace {

struct TypeCase {
  KernelType type;
  at::ScalarType scalar;
  float relative;
};

at::Tensor on_gpu(const std::vector<float>& values, at::ScalarType type) {
  return at::from_blob(const_cast<float*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kFloat)
      .to(at::TensorOptions().device(resolve_device("cuda")).dtype(type));
}

at::Tensor on_gpu(const std::vector<int32_t>& values) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kInt)
      .to(resolve_device("cuda"));
}

class GpuPagedAttention : public ::testing::TestWithParam<AttentionShape> {};

TEST_P(GpuPagedAttention, equals_the_reference_in_every_type) {
  AttentionCase c(GetParam());
  for (const TypeCase& t : {TypeCase{KernelType::kFloat32, at::kFloat, 1e-5f},
                            TypeCase{KernelType::kFloat16, at::kHalf, 4e-3f},
                            TypeCase{KernelType::kBFloat16, at::kBFloat16, 3e-2f}}) {
    PagedAttentionArgs args = c.args();
    std::vector<float> wanted(c.q.size());
    args.out = wanted.data();
    paged_attention_reference(args);
    const at::Tensor q = on_gpu(c.q, t.scalar), k = on_gpu(c.k, t.scalar),
                     v = on_gpu(c.v, t.scalar);
    const at::Tensor table = on_gpu(c.table), lengths = on_gpu(c.lengths);
    at::Tensor out = q.clone();
    args.q = q.const_data_ptr();
    args.k_cache = k.const_data_ptr();
    args.v_cache = v.const_data_ptr();
    args.slot_table = table.const_data_ptr<int32_t>();
    args.lengths = lengths.const_data_ptr<int32_t>();
    args.out = out.mutable_data_ptr();
    args.type = t.type;
    ASSERT_TRUE(cuda_module()->paged_attention(args, current_stream(out.device())));
    const at::Tensor host = out.to(at::kFloat).cpu();
    float top = 0;
    for (float value : wanted) top = std::max(top, std::abs(value));
    for (size_t i = 0; i < wanted.size(); ++i) {
      ASSERT_NEAR(host.const_data_ptr<float>()[i], wanted[i], t.relative * top) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuPagedAttention, ::testing::ValuesIn(attention_shapes()));

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (vlm::cuda_module() == nullptr) {
    std::puts("no GPU, or no GPU module beside the test: skipped");
    return 77;
  }
  return RUN_ALL_TESTS();
}
