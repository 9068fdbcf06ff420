// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmpool.h"

#include <algorithm>
#include <climits>

namespace gstvlm {
namespace {

struct Bounds {
  guint minimum = 0;
  guint maximum = 0;  // 0: none
};

Bounds bounds_of(GstBufferPool* pool) {
  Bounds bounds;
  GstStructure* config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_get_params(config, nullptr, nullptr, &bounds.minimum, &bounds.maximum);
  gst_structure_free(config);
  return bounds;
}

// A copy of a buffer's head, as elements make them to change metadata, still holds the memory of
// the buffer that belongs to the pool.
GstBufferPool* pool_of(GstBuffer* buffer) {
  while (buffer->pool == nullptr) {
    const GstParentBufferMeta* parent = gst_buffer_get_parent_buffer_meta(buffer);
    if (parent == nullptr) {
      return nullptr;
    }
    buffer = parent->buffer;
  }
  return buffer->pool;
}

bool in_system_memory(GstBuffer* buffer) {
  for (guint i = 0; i < gst_buffer_n_memory(buffer); ++i) {
    if (!gst_memory_is_type(gst_buffer_peek_memory(buffer, i), GST_ALLOCATOR_SYSMEM)) {
      return false;
    }
  }
  return true;
}

}  // namespace

unsigned spare_buffers(GstBuffer* buffer) {
  GstBufferPool* pool = pool_of(buffer);
  const Bounds bounds = pool == nullptr ? Bounds() : bounds_of(pool);
  if (bounds.maximum == 0) {
    if (in_system_memory(buffer)) {
      return UINT_MAX;
    }
    // Pools of cameras have bounds that their configuration does not tell.
    return pool == nullptr ? 0 : 1;
  }
  const guint needed = std::max(bounds.minimum, 1U);
  return bounds.maximum > needed ? bounds.maximum - needed : 0;
}

unsigned pool_minimum(GstBuffer* buffer) {
  GstBufferPool* pool = pool_of(buffer);
  return pool == nullptr ? 0 : bounds_of(pool).minimum;
}

BufferPtr own_copy(GstBuffer* buffer) {
  return BufferPtr(gst_buffer_copy_deep(buffer));
}

}  // namespace gstvlm
