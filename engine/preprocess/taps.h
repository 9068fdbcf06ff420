// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/host_device.h"

namespace vlm {

/// What each position of a resized side is made of: neighbours and their weights, 22 bits behind
/// the point.
struct Taps {
  struct Span {
    int64_t first = 0;  ///< input position
    int64_t count = 0;
  };
  int64_t stride = 0;
  std::vector<Span> spans;
  std::vector<int32_t> weights;  ///< [spans, stride]

  const int32_t* at(int64_t out) const { return weights.data() + out * stride; }
};

inline constexpr int kTapBits = 32 - 8 - 2;
inline constexpr int32_t kTapHalf = 1 << (kTapBits - 1);  ///< a sum begins with it, to round

/// The byte that a sum of weighted bytes stands for.
VLM_HOST_DEVICE inline uint8_t tapped_byte(int32_t sum) {
  const int32_t whole = sum >> kTapBits;
  return static_cast<uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

}  // namespace vlm
