// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What may be kept of other elements' buffers without starving their pools.

#include <memory>

#include "gstvlm-utils.h"

namespace gstvlm {

/// How many buffers like this one may be held while its owner goes on as it must: the maximum of
/// its pool less the minimum, which is what all others need, and that is one at least; UINT_MAX
/// where nothing bounds them. Memory of a device may be scarce all the same: one where its pool
/// tells no maximum, none where the pool is not known. Reentrant.
unsigned spare_buffers(GstBuffer* buffer);

/// Fewest buffers that its pool was set up with; 0 without a pool. Reentrant.
unsigned pool_minimum(GstBuffer* buffer);

/// Whether the buffer, or the one whose memory it has, belongs to a pool. Reentrant.
bool is_pooled(GstBuffer* buffer);

/// A copy in memory of its own, metadata included; null where the memory cannot be read. Reentrant.
BufferPtr own_copy(GstBuffer* buffer);

/// Copies whose memory is used again: fresh memory costs more than copying does. They may outlive
/// this object. Thread-safe.
class Copies {
 public:
  Copies() = default;
  ~Copies() { clear(); }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  /// own_copy() of a buffer in system memory; null for any other.
  BufferPtr copy(GstBuffer* buffer);

  /// Lets go of memory that no copy uses.
  void clear();

 private:
  BufferPtr fresh(gsize size);

  Mutex mutex_;
  std::unique_ptr<GstBufferPool, Unref> pool_ GSTVLM_GUARDED_BY(mutex_);
  gsize size_ GSTVLM_GUARDED_BY(mutex_) = 0;
};

}  // namespace gstvlm
