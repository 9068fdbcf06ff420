// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmpool.h"

#include <algorithm>
#include <climits>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

// Past the caches, in which the frames of a decoder lie that goes on with them.
void copy_past_caches(const guint8* from, guint8* to, gsize size) {
  gsize at = 0;
#ifdef __SSE2__
  constexpr gsize kStep = 64;
  if (reinterpret_cast<guintptr>(to) % sizeof(__m128i) == 0) {
    for (; at + kStep <= size; at += kStep) {
      const auto* source = reinterpret_cast<const __m128i*>(from + at);
      auto* target = reinterpret_cast<__m128i*>(to + at);
      const __m128i a = _mm_loadu_si128(source);
      const __m128i b = _mm_loadu_si128(source + 1);
      const __m128i c = _mm_loadu_si128(source + 2);
      const __m128i d = _mm_loadu_si128(source + 3);
      _mm_stream_si128(target, a);
      _mm_stream_si128(target + 1, b);
      _mm_stream_si128(target + 2, c);
      _mm_stream_si128(target + 3, d);
    }
    _mm_sfence();
  }
#endif
  std::memcpy(to + at, from + at, size - at);
}

// Whether all of the buffer's bytes, which are as many as `to` has, could be read.
bool copy_bytes(GstBuffer* buffer, const GstMapInfo& to) {
  gsize at = 0;
  for (guint i = 0; i < gst_buffer_n_memory(buffer); ++i) {
    GstMapInfo from;
    GstMemory* memory = gst_buffer_peek_memory(buffer, i);
    if (!gst_memory_map(memory, &from, GST_MAP_READ)) {
      return false;
    }
    const gsize size = std::min(from.size, to.size - at);
    copy_past_caches(from.data, to.data + at, size);
    at += size;
    gst_memory_unmap(memory, &from);
  }
  return at == to.size;
}

// To the buffer `target`, which has the same bytes; but for what keeps other buffers.
gboolean copy_meta(GstBuffer* buffer, GstMeta** meta, gpointer target) {
  const GstMetaInfo* info = (*meta)->info;
  static const GQuark reference = g_quark_from_static_string(GST_META_TAG_MEMORY_REFERENCE_STR);
  if (info->transform_func != nullptr && !gst_meta_api_type_has_tag(info->api, reference)) {
    GstMetaTransformCopy whole = {FALSE, 0, static_cast<gsize>(-1)};
    info->transform_func(static_cast<GstBuffer*>(target), *meta, buffer, _gst_meta_transform_copy,
                         &whole);
  }
  return TRUE;
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

bool is_pooled(GstBuffer* buffer) {
  return pool_of(buffer) != nullptr;
}

BufferPtr own_copy(GstBuffer* buffer) {
  return BufferPtr(gst_buffer_copy_deep(buffer));
}

BufferPtr Copies::copy(GstBuffer* buffer) {
  GstMapInfo map;
  BufferPtr made = in_system_memory(buffer) ? fresh(gst_buffer_get_size(buffer)) : nullptr;
  if (made == nullptr || !gst_buffer_map(made.get(), &map, GST_MAP_WRITE)) {
    return nullptr;
  }
  const bool whole = copy_bytes(buffer, map);
  gst_buffer_unmap(made.get(), &map);
  if (!whole) {
    return nullptr;
  }
  gst_buffer_copy_into(made.get(), buffer, GST_BUFFER_COPY_FLAGS, 0, map.size);
  gst_buffer_foreach_meta(buffer, copy_meta, made.get());
  return made;
}

BufferPtr Copies::fresh(gsize size) {
  const Lock lock(mutex_);
  if (pool_ == nullptr || size != size_) {
    pool_.reset(gst_buffer_pool_new());
    size_ = size;
    GstStructure* config = gst_buffer_pool_get_config(pool_.get());
    gst_buffer_pool_config_set_params(config, nullptr, static_cast<guint>(size), 0, 0);
    gst_buffer_pool_set_config(pool_.get(), config);
    gst_buffer_pool_set_active(pool_.get(), TRUE);
  }
  GstBuffer* buffer = nullptr;
  gst_buffer_pool_acquire_buffer(pool_.get(), &buffer, nullptr);
  return BufferPtr(buffer);
}

void Copies::clear() {
  const Lock lock(mutex_);
  pool_.reset();
}

}  // namespace gstvlm
