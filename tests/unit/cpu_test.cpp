// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"

#include <gtest/gtest.h>

#include <string>

namespace vlm {
namespace {

TEST(Cpu, levels_have_names) {
  EXPECT_EQ(*cpu_level("portable"), CpuLevel::kPortable);
  EXPECT_EQ(*cpu_level("avx2"), CpuLevel::kAvx2);
  EXPECT_EQ(*cpu_level("avx512"), CpuLevel::kAvx512);
  EXPECT_EQ(*cpu_level("avx512-bfloat16"), CpuLevel::kAvx512BFloat16);
  EXPECT_EQ(*cpu_level("amx"), CpuLevel::kAmx);
}

TEST(Cpu, another_name_gets_the_choices) {
  for (const char* name : {"AVX2", "avx", "avx512_bf16", " "}) {
    const Result<CpuLevel> level = cpu_level(name);
    ASSERT_FALSE(level) << name;
    EXPECT_EQ(level.error().kind, ErrorKind::kInvalidArgument);
    EXPECT_EQ(level.error().message,
              std::string("VLM_MAX_CPU_ISA is ") + name +
                  "; it is one of portable, avx2, avx512, avx512-bfloat16, amx");
  }
}

TEST(Cpu, what_is_there_has_all_that_comes_before) {
  EXPECT_LE(has_amx_bfloat16(), has_avx512_bfloat16());
  EXPECT_LE(has_avx512_bfloat16(), has_avx512());
  EXPECT_LE(has_avx512(), has_avx512_words());
  EXPECT_LE(has_avx512_words(), has_avx2());
}

}  // namespace
}  // namespace vlm
