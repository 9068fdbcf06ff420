// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/tensors.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "base/ceil_div.h"
#include "base/failure.h"
#include "cuda/tensor_ops.h"
#include "kernels/convert.h"
#include "kernels/shares.h"

namespace vlm {
namespace {

// Converted at a time by a thread: a few large pages.
constexpr int64_t kValuesPerPiece = int64_t{1} << 20;

at::ScalarType scalar_type(StoredType type) {
  switch (type) {
    case StoredType::kFloat16:
      return at::kHalf;
    case StoredType::kBFloat16:
      return at::kBFloat16;
    case StoredType::kFloat32:
      break;
  }
  return at::kFloat;
}

std::string shape_text(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

// A view of the mapping that keeps the mapping alive, and lets go of its pages in the end.
at::Tensor view(const StoredTensor& stored) {
  const auto release = [owner = stored.owner, mapping = stored.mapping,
                        bytes = stored.bytes](void* data) {
    if (mapping != nullptr) mapping->let_go(static_cast<const std::byte*>(data), bytes);
  };
  return at::from_blob(const_cast<std::byte*>(stored.data), stored.shape, release,
                       at::TensorOptions().dtype(scalar_type(stored.type)));
}

at::Tensor there(at::Tensor tensor, const std::string& name, at::IntArrayRef shape) {
  if (tensor.defined()) return tensor;
  throw Failure(ErrorKind::kInvalidModel,
                "the checkpoint has no tensor " + name + " of shape " + shape_text(shape));
}

// The matrix with what its adapter adds, as peft merges it, but in float32 throughout.
at::Tensor merged(const StoredTensor& matrix, const LoraFactors& lora) {
  const auto whole = [](const StoredTensor& stored) { return view(stored).to(at::kFloat); };
  return at::add(whole(matrix), at::mm(whole(lora.up), whole(lora.down)), lora.scale);
}

}  // namespace

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return at::kFloat;
    case DType::kFloat16:
      return at::kHalf;
    case DType::kBFloat16:
      return at::kBFloat16;
    case DType::kAuto:
      break;
  }
  throw Failure(ErrorKind::kInternal, "the type of the weights was not decided before loading");
}

TensorSource::TensorSource(const Weights& weights, at::Device device, at::ScalarType dtype,
                           LoadProgress progress, std::stop_token stop)
    : weights_(weights),
      device_(device),
      dtype_(dtype),
      progress_(std::move(progress)),
      stop_(std::move(stop)) {
  for (const auto& [name, tensor] : weights_.tensors()) stored_bytes_ += tensor.bytes;
}

// Undefined where the checkpoint has none. Tells the progress.
at::Tensor TensorSource::stored_view(const std::string& name, at::IntArrayRef shape) {
  const StoredTensor* stored = weights_.find(name);
  if (stored == nullptr) return {};
  if (stop_.stop_requested()) throw Failure(ErrorKind::kCancelled, "loading was cancelled");
  if (shape != at::IntArrayRef(stored->shape)) {
    throw Failure(ErrorKind::kInvalidModel, stored->file + ": tensor " + name + " has shape " +
                                                shape_text(stored->shape) + ", expected " +
                                                shape_text(shape));
  }
  const bool aligned =
      reinterpret_cast<uintptr_t>(stored->data) % c10::elementSize(scalar_type(stored->type)) == 0;
  at::Tensor tensor = stored->lora ? merged(*stored, *stored->lora) : view(*stored);
  if (!aligned) tensor = tensor.clone();
  if (!taken_.insert(name).second) return tensor;
  taken_bytes_ += stored->bytes;
  parameters_ += tensor.numel();
  if (progress_) {
    progress_(static_cast<double>(taken_bytes_) / static_cast<double>(stored_bytes_), name);
  }
  return tensor;
}

at::Tensor TensorSource::make(at::IntArrayRef shape, at::ScalarType type) {
  if (device_.is_cpu() && HugeMemory::available()) {
    at::Tensor memory = large_pages_.take(shape, type);
    if (memory.defined()) return memory;
  }
  return at::empty(shape, type);
}

at::Tensor TensorSource::converted(const at::Tensor& stored) {
  if (stored.scalar_type() == dtype_) return stored;
  const at::Tensor result = make(stored.sizes(), dtype_);
  const KernelType from_type = *kernel_type(stored.scalar_type()), to_type = *kernel_type(dtype_);
  const auto* from = static_cast<const std::byte*>(stored.const_data_ptr());
  auto* to = static_cast<std::byte*>(result.mutable_data_ptr());
  const auto from_size = static_cast<int64_t>(stored.element_size());
  const auto to_size = static_cast<int64_t>(result.element_size());
  const int64_t count = stored.numel();
  Shares(ceil_div(count, kValuesPerPiece), 1).each([&](int64_t piece) {
    const int64_t first = piece * kValuesPerPiece;
    convert_values(from_type, from + first * from_size, to_type, to + first * to_size,
                   std::min(kValuesPerPiece, count - first));
  });
  return result;
}

at::Tensor TensorSource::take_optional(const std::string& name, at::IntArrayRef shape) {
  at::Tensor tensor = stored_view(name, shape);
  if (!tensor.defined()) return tensor;
  const at::Tensor taken = converted(tensor).to(device_);
  count_held(taken);
  if (taken.const_data_ptr() == weights_.find(name)->data) {
    mapped_bytes_ += static_cast<int64_t>(taken.nbytes());
  }
  return taken;
}

at::Tensor TensorSource::take(const std::string& name, at::IntArrayRef shape) {
  return there(take_optional(name, shape), name, shape);
}

at::Tensor TensorSource::take_stored(const std::string& name, at::IntArrayRef shape) {
  return there(stored_view(name, shape), name, shape);
}

}  // namespace vlm
