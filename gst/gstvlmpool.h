// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What may be kept of other elements' buffers without starving their pools.

#include "gstvlm-utils.h"

namespace gstvlm {

/// How many buffers like this one may be held while its owner goes on as it must: the maximum of
/// its pool less the minimum, which is what all others need, and that is one at least; UINT_MAX
/// where nothing bounds them. Memory of a device may be scarce all the same: one where its pool
/// tells no maximum, none where the pool is not known. Reentrant.
unsigned spare_buffers(GstBuffer* buffer);

/// Fewest buffers that its pool was set up with; 0 without a pool. Reentrant.
unsigned pool_minimum(GstBuffer* buffer);

/// A copy in memory of its own, metadata included; null where the memory cannot be read. Reentrant.
BufferPtr own_copy(GstBuffer* buffer);

}  // namespace gstvlm
