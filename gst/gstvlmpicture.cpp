// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmpicture.h"

#include <utility>

namespace gstvlm {

Picture::Picture(GstBuffer* buffer, std::shared_ptr<const Look> look)
    : look_(std::move(look)), buffer_(gst_buffer_ref(buffer)) {}

vlm::Status Picture::check() const {
  const Lock lock(mutex_);
  return buffer_ == nullptr ? vlm::ok_status() : check_buffer(*look_, buffer_.get());
}

void Picture::keep_until_next() {
  const BufferPtr buffer = borrowed();
  if (buffer != nullptr && spare_buffers(buffer.get()) == 0) {
    replace(own_copy(buffer.get()));
  }
}

void Picture::keep(Copies& copies) {
  if (const BufferPtr buffer = borrowed()) {
    BufferPtr copy = copies.copy(buffer.get());
    replace(copy != nullptr ? std::move(copy) : own_copy(buffer.get()));
  }
}

void Picture::give_back() {
  if (const BufferPtr buffer = borrowed()) {
    replace(own_copy(buffer.get()));
  }
}

// The buffer, where it is still another element's.
BufferPtr Picture::borrowed() const {
  const Lock lock(mutex_);
  return buffer_ == nullptr || own_ ? BufferPtr() : BufferPtr(gst_buffer_ref(buffer_.get()));
}

// Where it cannot be copied it cannot be read either, which conversion will say.
void Picture::replace(BufferPtr copy) {
  const Lock lock(mutex_);
  if (copy != nullptr && buffer_ != nullptr) {
    buffer_.swap(copy);
    own_ = true;
  }
}

vlm::Result<std::shared_ptr<vlm::Frame>> Picture::convert(FrameConverter& converter) {
  BufferPtr buffer;
  {
    const Lock lock(mutex_);
    if (frame_ != nullptr) {
      return frame_;
    }
    buffer.reset(gst_buffer_ref(buffer_.get()));
  }
  vlm::Result<vlm::Frame> converted = converter.convert(buffer.get());
  if (!converted) {
    return converted.error();
  }
  auto frame = std::make_shared<vlm::Frame>(std::move(*converted));
  const Lock lock(mutex_);
  frame_ = frame;
  buffer_.reset();
  return frame;
}

}  // namespace gstvlm
