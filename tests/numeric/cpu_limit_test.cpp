// SPDX-License-Identifier: LGPL-2.1-or-later
// Run with each level in VLM_MAX_CPU_ISA, and without: every choice between kernels stays below it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/device.h"
#include "kernels/cpu.h"
#include "kernels/dense.h"
#include "kernels/matvec_kernels.h"
#include "kernels/product.h"
#include "kernels/whole_attention.h"

namespace vlm {
namespace {

CpuLevel limit() {
  const char* name = std::getenv("VLM_MAX_CPU_ISA");
  return name == nullptr ? CpuLevel::kAmx : *cpu_level(name);
}

bool allows(CpuLevel level) {
  return limit() >= level;
}

template <typename Family>
std::vector<std::string> names(const std::vector<Family>& families) {
  std::vector<std::string> all;
  for (const Family& family : families) all.emplace_back(family.name);
  return all;
}

TEST(CpuLimit, is_a_level) {
  EXPECT_TRUE(check_cpu_limit());
}

TEST(CpuLimit, holds_for_instructions) {
  EXPECT_LE(has_avx2(), allows(CpuLevel::kAvx2));
  EXPECT_LE(has_avx512(), allows(CpuLevel::kAvx512));
  EXPECT_LE(has_avx512_words(), allows(CpuLevel::kAvx512));
  EXPECT_LE(has_avx512_bfloat16(), allows(CpuLevel::kAvx512BFloat16));
  EXPECT_LE(has_amx_bfloat16(), allows(CpuLevel::kAmx));
  EXPECT_LE(has_matrix_units(), allows(CpuLevel::kAmx));
}

TEST(CpuLimit, leaves_the_products_below_it_in_their_order) {
  std::vector<std::string> expected;
  if (has_avx512_bfloat16()) expected.emplace_back("avx512-bfloat16");
  if (has_avx512()) expected.emplace_back("avx512");
  if (has_avx2()) expected.emplace_back("avx2");
  expected.emplace_back("portable");
  EXPECT_EQ(names(matvec_families()), expected);
}

TEST(CpuLimit, holds_for_products_of_many_rows) {
  const std::vector<std::string> families = names(product_families());
  EXPECT_EQ(std::count(families.begin(), families.end(), "amx"), has_matrix_units() ? 1 : 0);
  EXPECT_EQ(std::count(families.begin(), families.end(), "avx512"), has_avx512_bfloat16() ? 1 : 0);
  // Servers with AVX-512 but without products of bfloat16 leave them to libtorch.
  const bool by_avx2 = has_avx512_bfloat16() || (has_avx2() && !has_avx512_words());
  EXPECT_EQ(std::count(families.begin(), families.end(), "avx2"), by_avx2 ? 1 : 0);
  EXPECT_EQ(byte_products() != nullptr, by_avx2);
  EXPECT_LE(has_whole_attention(), has_avx512_bfloat16());
}

TEST(CpuLimit, holds_for_what_is_left_to_libtorch) {
#if defined(__x86_64__)
  EXPECT_LE(multiplies_halves(at::kBFloat16), allows(CpuLevel::kAvx512));
  const DType type = resolve_dtype(DType::kAuto, DType::kBFloat16, at::Device(at::kCPU));
  EXPECT_EQ(type, product_families().empty() ? DType::kFloat32 : DType::kBFloat16);
#endif
}

}  // namespace
}  // namespace vlm
