// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/step_buffers.h"

#include <algorithm>

#include "base/device.h"
#include "cuda/tensor_ops.h"

namespace vlm {

StepBuffers::StepBuffers(int64_t max_rows, int64_t max_length, at::Device device)
    : fields_(DeviceBuffer::make({kFields, max_rows}, at::kLong, device)),
      table_(DeviceBuffer::make({max_rows, max_length}, at::kInt, device)),
      cached_lengths_(DeviceBuffer::make({max_rows}, at::kInt, device)) {}

void StepBuffers::fill_row(int64_t row, int64_t id, const int32_t* slots, int64_t length) {
  auto* fields = fields_.host.mutable_data_ptr<int64_t>() + row;
  const int64_t stride = fields_.host.stride(0);
  fields[kIds * stride] = id;
  fields[kPositions * stride] = length - 1;
  fields[kLengths * stride] = length;
  fields[kSlots * stride] = slots[length - 1];
  cached_lengths_.host.mutable_data_ptr<int32_t>()[row] = static_cast<int32_t>(length);
  std::copy_n(slots, length, table_.host.mutable_data_ptr<int32_t>() + row * table_.host.stride(0));
  longest_ = std::max(longest_, length);
}

void StepBuffers::fill(const std::vector<DecodePart>& decodes, int64_t padded_rows,
                       int32_t spare_slot) {
  const auto own = static_cast<int64_t>(decodes.size());
  rows_ = std::max(own, padded_rows);
  longest_ = 0;
  for (int64_t row = 0; row < own; ++row) {
    const DecodePart& part = decodes[static_cast<size_t>(row)];
    fill_row(row, part.id, part.slots->data(), static_cast<int64_t>(part.slots->size()));
  }
  for (int64_t row = own; row < rows_; ++row) fill_row(row, 0, &spare_slot, 1);
  if (rows_ == 0 || fields_.host.is_same(fields_.device)) return;
  fields_.device.copy_(fields_.host, /*non_blocking=*/true);
  cached_lengths_.send(rows_);
  send_table();
}

// Only what is in use of each row.
void StepBuffers::send_table() const {
  constexpr size_t kSlot = sizeof(int32_t);
  const CudaModule* module = table_.device.is_cuda() ? cuda_module() : nullptr;
  if (module == nullptr) {
    table_.send(rows_);
    return;
  }
  require(module->send_rows(table_.device.mutable_data_ptr(), table_.host.const_data_ptr(),
                            static_cast<size_t>(table_.host.stride(0)) * kSlot,
                            static_cast<size_t>(longest_) * kSlot, static_cast<size_t>(rows_),
                            current_stream(table_.device.device())),
          "taking in a step");
}

CachedRows StepBuffers::cached() const {
  return {table_.rows(rows_), cached_lengths_.rows(rows_), longest_};
}

StepBuffers::HostRows StepBuffers::host_rows() const {
  const auto* fields = fields_.host.const_data_ptr<int64_t>();
  const int64_t stride = fields_.host.stride(0);
  return {fields + kIds * stride,
          fields + kPositions * stride,
          fields + kSlots * stride,
          cached_lengths_.host.const_data_ptr<int32_t>(),
          table_.host.const_data_ptr<int32_t>(),
          table_.host.stride(0),
          longest_};
}

AdvanceArgs StepBuffers::advance_args() const {
  AdvanceArgs args;
  args.ids = ids().mutable_data_ptr<int64_t>();
  args.positions = positions().mutable_data_ptr<int64_t>();
  args.lengths = lengths().mutable_data_ptr<int64_t>();
  args.slots = slots().mutable_data_ptr<int64_t>();
  args.cached_lengths = cached_lengths_.device.mutable_data_ptr<int32_t>();
  args.slot_table = table_.device.mutable_data_ptr<int32_t>();
  args.table_stride = table_.device.stride(0);
  args.rows = rows_;
  return args;
}

}  // namespace vlm
