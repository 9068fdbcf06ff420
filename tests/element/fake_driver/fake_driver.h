// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What a test may ask of the fake driver beside the driver's own interface. It is found by name in
// the library libcuda.so.1.

#include <cstddef>
#include <cstdint>

struct FakeDriverCounts {
  int contexts;         ///< alive that were created, the primary ones left out
  int primary_holders;  ///< retained and not released, over all devices
  int allocations;      ///< of device memory, alive
  int64_t downloads;    ///< copies from a device to the host
  int64_t uploads;
  int64_t copies;  ///< inside devices
};
extern "C" FakeDriverCounts fake_driver_counts();

/// Reads device memory.
extern "C" void fake_driver_read(void* to, const void* device_memory, size_t bytes);
