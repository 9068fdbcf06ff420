// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmpicture.h"

#include <climits>
#include <utility>

#include "gstvlmpool.h"

namespace gstvlm {

Picture::Picture(GstBuffer* buffer, std::shared_ptr<const Look> look)
    : look_(std::move(look)), buffer_(gst_buffer_ref(buffer)) {}

vlm::Status Picture::check() const {
  const Lock lock(mutex_);
  return buffer_ == nullptr ? vlm::ok_status() : check_buffer(*look_, buffer_.get());
}

void Picture::keep(bool until_next) {
  BufferPtr buffer;
  {
    const Lock lock(mutex_);
    if (buffer_ == nullptr || own_) {
      return;
    }
    buffer.reset(gst_buffer_ref(buffer_.get()));
  }
  const unsigned spare = spare_buffers(buffer.get());
  if (spare == UINT_MAX || (until_next && spare > 0)) {
    return;
  }
  // Where it cannot be copied it cannot be read either, which conversion will say.
  BufferPtr copy = own_copy(buffer.get());
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
