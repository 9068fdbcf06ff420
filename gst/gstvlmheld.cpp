// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmheld.h"

#include "gstvlmdescription.h"

namespace gstvlm {
namespace {

bool pool_may_run_dry(GstBuffer* buffer) {
  if (buffer->pool == nullptr) {
    return false;
  }
  GstStructure* config = gst_buffer_pool_get_config(buffer->pool);
  guint maximum = 0;
  const gboolean known =
      gst_buffer_pool_config_get_params(config, nullptr, nullptr, nullptr, &maximum);
  gst_structure_free(config);
  return !known || maximum != 0;
}

}  // namespace

void HeldVideo::add(BufferPtr buffer, uint64_t serial) {
  if (serial != kNoTime && pool_may_run_dry(buffer.get())) {
    buffer.reset(gst_buffer_copy_deep(buffer.get()));
  }
  const uint64_t size = gst_buffer_get_size(buffer.get());
  const Lock lock(mutex_);
  if (flushing_) {
    return;
  }
  bytes_ += size;
  entries_.push_back({{std::move(buffer), nullptr}, serial, size});
}

void HeldVideo::add(EventPtr event) {
  const Lock lock(mutex_);
  if (!flushing_) {
    entries_.push_back({{nullptr, std::move(event)}, kNoTime, 0});
  }
}

void HeldVideo::resolve(uint64_t serial, const GstStructure* structure) {
  const Lock lock(mutex_);
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
  item = std::move(entry.item);
  const auto found = resolved_.find(entry.serial);
  if (item.buffer != nullptr && found != resolved_.end()) {
    if (found->second != nullptr) {
      item.buffer.reset(gst_buffer_make_writable(item.buffer.release()));
      attach_description(item.buffer.get(), found->second.get());
    }
    // Windows go out in order: older ones are not asked for again.
    resolved_.erase(resolved_.begin(), found);
  }
  return item;
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

}  // namespace gstvlm
