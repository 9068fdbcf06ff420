// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"

#include <cstdlib>
#include <string>

#include "vlm/names.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vlm {
namespace {

constexpr const char* kVariable = "VLM_MAX_CPU_ISA";
constexpr EnumNames<CpuLevel, 5> kLevelNames = {{{CpuLevel::kPortable, "portable"},
                                                 {CpuLevel::kAvx2, "avx2"},
                                                 {CpuLevel::kAvx512, "avx512"},
                                                 {CpuLevel::kAvx512BFloat16, "avx512-bfloat16"},
                                                 {CpuLevel::kAmx, "amx"}}};

const Result<CpuLevel>& limit() {
  static const Result<CpuLevel> level = [] {
    const char* name = std::getenv(kVariable);
    return name == nullptr || *name == '\0' ? Result(CpuLevel::kAmx) : cpu_level(name);
  }();
  return level;
}

struct Processor {
  bool avx2 = false, avx512 = false, avx512_words = false, avx512_bfloat16 = false, amx = false;
  bool brings_streams = false;
};

#if defined(__x86_64__)
bool knows_amx() {
  // Clang 14 knows no name for it.
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & 1u << 22) != 0;
}

bool is_zen3_or_4() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0 || b != signature_AMD_ebx) return false;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kFamily = 0x19;
  return (a >> 8 & 15u) + (a >> 20 & 255u) == kFamily;
}

Processor find_processor() {
  const CpuLevel most = limit() ? *limit() : CpuLevel::kAmx;
  Processor has;
  has.avx2 = most >= CpuLevel::kAvx2 && __builtin_cpu_supports("avx2") != 0 &&
             __builtin_cpu_supports("fma") != 0;
  has.avx512_words =
      most >= CpuLevel::kAvx512 && has.avx2 && __builtin_cpu_supports("avx512bw") != 0;
  has.avx512 = has.avx512_words && __builtin_cpu_supports("avx512f") != 0 &&
               __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
               __builtin_cpu_supports("avx512vnni") != 0;
  has.avx512_bfloat16 =
      most >= CpuLevel::kAvx512BFloat16 && has.avx512 && __builtin_cpu_supports("avx512bf16") != 0;
  has.amx = most >= CpuLevel::kAmx && has.avx512_bfloat16 && knows_amx();
  has.brings_streams = is_zen3_or_4();
  return has;
}
#else
Processor find_processor() {
  return {};
}
#endif

const Processor& processor() {
  static const Processor found = find_processor();
  return found;
}

}  // namespace

Result<CpuLevel> cpu_level(const char* name) {
  if (const auto level = enum_value(kLevelNames, name)) return *level;
  std::string choices;
  for (const auto& known : kLevelNames) {
    choices += (choices.empty() ? "" : ", ") + std::string(known.second);
  }
  return Error{ErrorKind::kInvalidArgument,
               std::string(kVariable) + " is " + name + "; it is one of " + choices,
               {}};
}

Status check_cpu_limit() {
  return limit() ? ok_status() : Status(limit().error());
}

bool has_avx2() {
  return processor().avx2;
}

bool has_avx512() {
  return processor().avx512;
}

bool has_avx512_words() {
  return processor().avx512_words;
}

bool has_avx512_bfloat16() {
  return processor().avx512_bfloat16;
}

bool has_amx_bfloat16() {
  return processor().amx;
}

bool brings_streams_itself() {
  return processor().brings_streams;
}

}  // namespace vlm
