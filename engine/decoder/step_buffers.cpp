// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/step_buffers.h"

#include <algorithm>

namespace vlm {

StepBuffers::StepBuffers(int64_t max_rows, int64_t max_length, at::Device device)
    : ids_(DeviceBuffer::make({max_rows}, at::kLong, device)),
      positions_(DeviceBuffer::make({max_rows}, at::kLong, device)),
      lengths_(DeviceBuffer::make({max_rows}, at::kLong, device)),
      slots_(DeviceBuffer::make({max_rows}, at::kLong, device)),
      table_(DeviceBuffer::make({max_rows, max_length}, at::kInt, device)),
      cached_lengths_(DeviceBuffer::make({max_rows}, at::kInt, device)) {}

void StepBuffers::fill(const std::vector<DecodePart>& decodes) {
  rows_ = static_cast<int64_t>(decodes.size());
  longest_ = 0;
  const int64_t stride = table_.host.stride(0);
  for (int64_t row = 0; row < rows_; ++row) {
    const DecodePart& part = decodes[static_cast<size_t>(row)];
    const auto length = static_cast<int64_t>(part.slots->size());
    ids_.host.mutable_data_ptr<int64_t>()[row] = part.id;
    positions_.host.mutable_data_ptr<int64_t>()[row] = length - 1;
    lengths_.host.mutable_data_ptr<int64_t>()[row] = length;
    slots_.host.mutable_data_ptr<int64_t>()[row] = part.slots->back();
    cached_lengths_.host.mutable_data_ptr<int32_t>()[row] = static_cast<int32_t>(length);
    std::copy(part.slots->begin(), part.slots->end(),
              table_.host.mutable_data_ptr<int32_t>() + row * stride);
    longest_ = std::max(longest_, length);
  }
  for (const DeviceBuffer* buffer : {&ids_, &positions_, &lengths_, &slots_, &cached_lengths_}) {
    buffer->send(rows_);
  }
  if (!table_.host.is_same(table_.device) && rows_ > 0) {
    table_.device.narrow(0, 0, rows_)
        .narrow(1, 0, longest_)
        .copy_(table_.host.narrow(0, 0, rows_).narrow(1, 0, longest_), /*non_blocking=*/true);
  }
}

CachedRows StepBuffers::cached() const {
  return {table_.rows(rows_), cached_lengths_.rows(rows_), longest_};
}

}  // namespace vlm
