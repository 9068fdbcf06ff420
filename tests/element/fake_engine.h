// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What a test may ask of the fake engine beside the engine's own interface. The plugin and the test
// open the same library, so they see the same state.

#include <cstdint>

/// Requests now wait for fake_open_gate(), each time for `count` of them; -1 lets all through.
extern "C" void fake_close_gate();
extern "C" void fake_open_gate(int count);

struct FakeCounts {
  int engines;    ///< alive
  int opened;     ///< since the library was loaded
  int submitted;  ///< requests
  int finished;
  int cancelled;
};
extern "C" FakeCounts fake_counts();

/// Engines opened for this checkpoint.
extern "C" int fake_opened(const char* model);
