// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/paged_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "gpu/gpu_case.h"
#include "numeric/attention_case.h"

namespace vlm {
namespace {

struct TypeCase {
  KernelType type;
  at::ScalarType scalar;
  float relative;
};

at::Tensor on_gpu(const std::vector<float>& values, at::ScalarType type) {
  return to_gpu(at::from_blob(const_cast<float*>(values.data()),
                              {static_cast<int64_t>(values.size())}, at::kFloat))
      .to(type);
}

at::Tensor on_gpu(const std::vector<int32_t>& values) {
  return to_gpu(at::from_blob(const_cast<int32_t*>(values.data()),
                              {static_cast<int64_t>(values.size())}, at::kInt));
}

class GpuPagedAttention : public ::testing::TestWithParam<AttentionShape> {
 protected:
  // Calls `attend` with the case on the GPU in every type and compares.
  template <typename Attend>
  void check(const Attend& attend) {
    for (const TypeCase& t : {TypeCase{KernelType::kFloat32, at::kFloat, 1e-5f},
                              TypeCase{KernelType::kFloat16, at::kHalf, 4e-3f},
                              TypeCase{KernelType::kBFloat16, at::kBFloat16, 3e-2f}}) {
      PagedAttentionArgs args = case_.args();
      std::vector<float> wanted(case_.q.size());
      args.out = wanted.data();
      paged_attention_reference(args);
      const at::Tensor q = on_gpu(case_.q, t.scalar), k = on_gpu(case_.k, t.scalar),
                       v = on_gpu(case_.v, t.scalar);
      const at::Tensor table = on_gpu(case_.table), lengths = on_gpu(case_.lengths);
      const at::Tensor out = q.clone();
      args.q = q.const_data_ptr();
      args.k_cache = k.const_data_ptr();
      args.v_cache = v.const_data_ptr();
      args.slot_table = table.const_data_ptr<int32_t>();
      args.lengths = lengths.const_data_ptr<int32_t>();
      args.out = out.mutable_data_ptr();
      args.type = t.type;
      if (!attend(args)) continue;
      const at::Tensor host = out.to(at::kFloat).cpu();
      float top = 0;
      for (float value : wanted) top = std::max(top, std::abs(value));
      for (size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_NEAR(host.const_data_ptr<float>()[i], wanted[i], t.relative * top) << i;
      }
    }
  }

  AttentionCase case_{GetParam()};
};

TEST_P(GpuPagedAttention, equals_the_reference_in_every_type) {
  check([](const PagedAttentionArgs& args) {
    EXPECT_TRUE(cuda_module()->paged_attention(args, stream_of_tests()));
    return true;
  });
}

TEST_P(GpuPagedAttention, equals_the_reference_however_the_past_is_cut) {
  for (const int64_t splits : {1, 2, 5, 64}) {
    SCOPED_TRACE(splits);
    check([&](const PagedAttentionArgs& args) {
      SplitAttentionArgs split;
      split.base = args;
      split.splits = splits;
      const at::Tensor partials = to_gpu(at::empty({split.floats()}, at::kFloat));
      const at::Tensor arrivals = to_gpu(at::zeros({args.rows * args.heads}, at::kInt));
      split.partials = partials.mutable_data_ptr<float>();
      split.arrivals = arrivals.mutable_data_ptr<int32_t>();
      const int64_t wide = args.type == KernelType::kFloat32 ? 4 : 8;
      const bool covered = args.head_dim % wide == 0 && args.head_dim <= 32 * wide;
      // Twice: what is left of the first call must not disturb the second.
      for (int call = 0; call < 2; ++call) {
        EXPECT_EQ(cuda_module()->split_attention(split, stream_of_tests()), covered);
      }
      EXPECT_EQ(arrivals.cpu().abs().sum().item<int64_t>(), 0);
      return covered;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuPagedAttention, ::testing::ValuesIn(attention_shapes()));

}  // namespace
}  // namespace vlm

int main(int argc, char** argv) {
  return vlm::run_gpu_tests(argc, argv);
}
