// SPDX-License-Identifier: LGPL-2.1-or-later
#include "kernels/cpu.h"
#include "kernels/product_tiles.h"

#if defined(__x86_64__)

#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace vlm::tiles {
namespace {

// What ldtilecfg reads (Intel SDM, volume 1, 18.3).
struct alignas(64) Configuration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved = {};
  std::array<uint16_t, 16> row_bytes = {64, 64, 64, 64, 64, 64, 64, 64};
  std::array<uint8_t, 16> rows = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(Configuration) == 64);

constexpr int64_t kTileStride = 64;

// Assembler, since GCC 12's intrinsics tell the compiler of 8 bytes of the configuration only, and
// want flags for the whole file. Compilers use no tile register of their own accord.
// NOLINTBEGIN(bugprone-macro-parentheses): numbers of registers
#define VLM_TILE_LOAD(tile, from, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"(stride) : "memory")
#define VLM_TILE_STORE(tile, to) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"(kTileStride) : "memory")
#define VLM_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile : :)
#define VLM_TILE_PRODUCT(sums, weights, x) \
  asm volatile("tdpbf16ps %%tmm" #x ", %%tmm" #weights ", %%tmm" #sums : :)
// NOLINTEND(bugprone-macro-parentheses)

void configure() {
  static const Configuration configuration;
  asm volatile("ldtilecfg %0" : : "m"(configuration));
}

void release() {
  asm volatile("tilerelease" : :);
}

template <bool kSecondRows>
void multiply_tiles(const Block& block) {
  float* sums = block.sums;
  const std::byte* weights = block.weights;
  const int64_t stride = block.weights_stride;
  const std::byte* x = block.x;
  const std::byte* ahead = block.ahead;
  if (block.more) {
    VLM_TILE_LOAD(0, sums, kTileStride);
    if constexpr (kSecondRows) VLM_TILE_LOAD(1, sums + 256, kTileStride);
    VLM_TILE_LOAD(2, sums + 512, kTileStride);
    if constexpr (kSecondRows) VLM_TILE_LOAD(3, sums + 768, kTileStride);
  } else {
    VLM_TILE_ZERO(0);
    VLM_TILE_ZERO(1);
    VLM_TILE_ZERO(2);
    VLM_TILE_ZERO(3);
  }
  for (int64_t step = 0; step < block.steps; ++step) {
    VLM_TILE_LOAD(4, weights, stride);
    VLM_TILE_LOAD(6, x, kTileStride);
    VLM_TILE_PRODUCT(0, 4, 6);
    if constexpr (kSecondRows) {
      VLM_TILE_LOAD(7, x + kTileBytes, kTileStride);
      VLM_TILE_PRODUCT(1, 4, 7);
    }
    VLM_TILE_LOAD(5, weights + kSide * stride, stride);
    VLM_TILE_PRODUCT(2, 5, 6);
    for (int64_t row = 0; row < block.ahead_rows; ++row) {
      __builtin_prefetch(ahead + row * block.ahead_stride, 0, 2);
    }
    ahead += block.ahead_step;
    if constexpr (kSecondRows) VLM_TILE_PRODUCT(3, 5, 7);
    weights += kRowBytes;
    x += kStepBytes;
  }
  VLM_TILE_STORE(0, sums);
  if constexpr (kSecondRows) VLM_TILE_STORE(1, sums + 256);
  VLM_TILE_STORE(2, sums + 512);
  if constexpr (kSecondRows) VLM_TILE_STORE(3, sums + 768);
}

void multiply(const Block& block) {
  if (block.row_tiles > 1) {
    multiply_tiles<true>(block);
  } else {
    multiply_tiles<false>(block);
  }
}

}  // namespace

const Unit kAmx = {.layout = kHalves,
                   .fetches = true,
                   .begin = configure,
                   .end = release,
                   .multiply = multiply,
                   .finish = finish_avx512};

bool claim_amx() {
#if defined(__linux__)
  static const bool granted = [] {
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(2)
    return has_avx512_bfloat16() && has_amx_bfloat16() &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

}  // namespace vlm::tiles

#endif
