// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>

namespace vlm {

/// While one lives, the memory of large CPU tensors that its thread makes is kept when they are let
/// go and serves later ones: the system clears each page that it hands out anew, which for the
/// tensors of a prompt takes a tenth of the prompt's time. Tensors of other threads are none of its
/// business; they may let go of these. Guards nest.
class ReusedMemory {
 public:
  /// At most so much is kept for the whole process.
  static constexpr size_t kMostBytes = size_t{128} << 20;

  ReusedMemory();
  ~ReusedMemory();
  ReusedMemory(const ReusedMemory&) = delete;
  ReusedMemory& operator=(const ReusedMemory&) = delete;

  /// Bytes that wait for their next use. Reentrant.
  static size_t kept_bytes();
  /// Gives them back to the system. Reentrant.
  static void let_go();
};

}  // namespace vlm
