// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

namespace vlm {

/// Threads that the engine's work on the CPU is shared out to.
struct ComputeThreads {
  int least = 1, most = 1;

  /// What suits this machine and the calling thread's affinity (usable_cores()), no more than
  /// libtorch is set to; OMP_NUM_THREADS instead where the environment has it. `least` is 1, and
  /// with OMP_DYNAMIC=false it is `most`.
  static ComputeThreads choose();
};

/// While it lives, libtorch's and our own work on the calling thread is shared out to so many
/// threads, that one included. Thread-bound; another inside it counts while it lives. Where the
/// number changes between two pieces of work, OpenMP ends or starts threads: some ten microseconds
/// each.
class TeamSize {
 public:
  explicit TeamSize(int threads);
  ~TeamSize();
  TeamSize(const TeamSize&) = delete;
  TeamSize& operator=(const TeamSize&) = delete;

 private:
  int before_;
};

}  // namespace vlm
