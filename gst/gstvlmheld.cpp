// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmheld.h"

#include <gst/video/video.h>

#include <algorithm>
#include <climits>

#include "gstvlmanalytics.h"
#include "gstvlmdescription.h"
#include "gstvlmpool.h"

namespace gstvlm {
void HeldVideo::ask(GstQuery* allocation, unsigned more) {
  unsigned most = 0;
  const guint pools = gst_query_get_n_allocation_pools(allocation);
  for (guint i = 0; i < pools; ++i) {
    GstBufferPool* pool = nullptr;
    guint size = 0;
    guint minimum = 0;
    guint maximum = 0;
    gst_query_parse_nth_allocation_pool(allocation, i, &pool, &size, &minimum, &maximum);
    minimum += more;
    gst_query_set_nth_allocation_pool(allocation, i, pool, size, minimum,
                                      maximum == 0 ? 0 : maximum + more);
    most = std::max(most, minimum);
    g_clear_object(&pool);
  }
  if (pools == 0) {
    GstCaps* caps = nullptr;
    gst_query_parse_allocation(allocation, &caps, nullptr);
    GstVideoInfo info;
    if (caps == nullptr || !gst_video_info_from_caps(&info, caps)) {
      return;
    }
    gst_query_add_allocation_pool(allocation, nullptr,
                                  static_cast<guint>(GST_VIDEO_INFO_SIZE(&info)), more, 0);
    most = more;
  }
  const Lock lock(mutex_);
  asked_ = more;
  asked_minimum_ = most;
}

// One buffer is left for the frame that the sampler may want again.
bool HeldVideo::may_borrow(unsigned spare, unsigned minimum) const {
  const uint64_t granted = asked_ > 0 && minimum >= asked_minimum_ ? asked_ : 0;
  return borrowed_ + 1 < spare + granted;
}

void HeldVideo::add(BufferPtr buffer, uint64_t serial) {
  const unsigned spare = serial == kNoTime ? UINT_MAX : spare_buffers(buffer.get());
  bool borrowed = false;
  if (spare != UINT_MAX) {
    const unsigned minimum = pool_minimum(buffer.get());
    {
      const Lock lock(mutex_);
      borrowed = may_borrow(spare, minimum);
    }
    if (!borrowed) {
      if (BufferPtr copy = own_copy(buffer.get())) {
        buffer = std::move(copy);
      }
    }
  }
  const uint64_t size = gst_buffer_get_size(buffer.get());
  const Lock lock(mutex_);
  if (flushing_) {
    return;
  }
  bytes_ += size;
  borrowed_ += borrowed ? 1 : 0;
  entries_.push_back({{std::move(buffer), nullptr}, serial, size, borrowed});
}

void HeldVideo::add(EventPtr event) {
  const Lock lock(mutex_);
  if (!flushing_) {
    entries_.push_back({{nullptr, std::move(event)}, kNoTime, 0, false});
  }
}

// Only the streaming thread, which is the caller, adds and takes: what is found stays in its place.
void HeldVideo::give_back() {
  for (size_t i = 0;; ++i) {
    BufferPtr buffer;
    {
      const Lock lock(mutex_);
      if (i >= entries_.size()) {
        return;
      }
      if (GstBuffer* held = entries_[i].item.buffer.get(); held != nullptr && is_pooled(held)) {
        buffer.reset(gst_buffer_ref(held));
      }
    }
    BufferPtr copy = buffer == nullptr ? nullptr : own_copy(buffer.get());
    buffer.reset();
    const Lock lock(mutex_);
    if (copy != nullptr && i < entries_.size()) {
      entries_[i].item.buffer.swap(copy);
      borrowed_ -= entries_[i].borrowed ? 1 : 0;
      entries_[i].borrowed = false;
    }
  }
}

void HeldVideo::resolve(uint64_t serial, const GstStructure* structure) {
  const Lock lock(mutex_);
  if (!holding_) {
    return;
  }
  resolved_[serial] = structure == nullptr ? StructurePtr() : copy_structure(structure);
  changed_.notify_all();
}

void HeldVideo::resolve_all() {
  const Lock lock(mutex_);
  all_ = true;
  changed_.notify_all();
}

bool HeldVideo::ready() const {
  return !entries_.empty() && (all_ || entries_.front().serial == kNoTime ||
                               resolved_.count(entries_.front().serial) > 0);
}

HeldVideo::Item HeldVideo::take() {
  Item item;
  const Lock lock(mutex_);
  if (!ready()) {
    if (entries_.empty()) {
      all_ = false;
    }
    return item;
  }
  Entry entry = std::move(entries_.front());
  entries_.pop_front();
  bytes_ -= entry.bytes;
  borrowed_ -= entry.borrowed ? 1 : 0;
  item = std::move(entry.item);
  const auto found = resolved_.find(entry.serial);
  if (item.buffer != nullptr && found != resolved_.end()) {
    if (found->second != nullptr) {
      item.buffer.reset(gst_buffer_make_writable(item.buffer.release()));
      attach_description(item.buffer.get(), found->second.get());
      attach_analytics(item.buffer.get(), found->second.get());
    }
    // Windows go out in order: older ones are not asked for again.
    resolved_.erase(resolved_.begin(), found);
  }
  return item;
}

void HeldVideo::start(bool holding) {
  flush();
  const Lock lock(mutex_);
  holding_ = holding;
  flushing_ = false;
}

bool HeldVideo::wait() {
  const Lock lock(mutex_);
  while (!flushing_ && !entries_.empty() && !ready()) {
    changed_.wait(mutex_);
  }
  return !flushing_;
}

void HeldVideo::flush() {
  const Lock lock(mutex_);
  flushing_ = true;
  entries_.clear();
  resolved_.clear();
  bytes_ = 0;
  borrowed_ = 0;
  all_ = false;
  changed_.notify_all();
}

void HeldVideo::resume() {
  const Lock lock(mutex_);
  flushing_ = false;
}

bool HeldVideo::empty() const {
  const Lock lock(mutex_);
  return entries_.empty();
}

uint64_t HeldVideo::bytes() const {
  const Lock lock(mutex_);
  return bytes_;
}

uint64_t HeldVideo::front_serial() const {
  const Lock lock(mutex_);
  return entries_.empty() ? kNoTime : entries_.front().serial;
}

unsigned buffers_to_hold(GstCaps* caps, uint64_t interval_ns, unsigned max_pending,
                         uint64_t most_bytes) {
  GstVideoInfo info;
  if (caps == nullptr || !gst_video_info_from_caps(&info, caps) ||
      GST_VIDEO_INFO_SIZE(&info) == 0) {
    return 0;
  }
  constexpr uint64_t kUsualRate = 30;
  uint64_t frames = max_pending;
  if (interval_ns != 0) {
    const bool known = GST_VIDEO_INFO_FPS_N(&info) > 0 && GST_VIDEO_INFO_FPS_D(&info) > 0;
    const uint64_t rate_n = known ? static_cast<uint64_t>(GST_VIDEO_INFO_FPS_N(&info)) : kUsualRate;
    const uint64_t rate_d = known ? static_cast<uint64_t>(GST_VIDEO_INFO_FPS_D(&info)) : 1;
    frames =
        2 * std::min<uint64_t>(gst_util_uint64_scale_ceil(interval_ns, rate_n, rate_d * GST_SECOND),
                               G_MAXINT16);
  }
  const uint64_t bound = most_bytes / GST_VIDEO_INFO_SIZE(&info);
  return static_cast<unsigned>(std::min({frames + 2, bound, uint64_t{G_MAXINT16}}));
}

}  // namespace gstvlm
