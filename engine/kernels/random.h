// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace vlm {

/// Four random words.
struct Philox4 {
  uint32_t words[4];
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a pure
/// function of counter and key, so a draw never depends on what else is in the batch. Reentrant;
/// host and device.
VLM_HOST_DEVICE inline Philox4 philox(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.words[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.words[2];
    counter = Philox4{{static_cast<uint32_t>(product1 >> 32) ^ counter.words[1] ^ key0,
                       static_cast<uint32_t>(product1),
                       static_cast<uint32_t>(product0 >> 32) ^ counter.words[3] ^ key1,
                       static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// Uniform in the open interval (0, 1), for draw `index` of token `token` in request (seed,
/// sequence).
VLM_HOST_DEVICE inline double uniform_draw(uint64_t seed, uint64_t sequence, uint32_t token,
                                           uint32_t index) {
  const Philox4 counter = {
      {index, token, static_cast<uint32_t>(sequence), static_cast<uint32_t>(sequence >> 32)}};
  const Philox4 bits =
      philox(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const uint64_t mantissa = ((uint64_t{bits.words[0]} << 32) | bits.words[1]) >> 11;
  return (static_cast<double>(mantissa) + 0.5) * 0x1.0p-53;
}

}  // namespace vlm
