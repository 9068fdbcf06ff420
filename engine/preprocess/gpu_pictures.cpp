// SPDX-License-Identifier: LGPL-2.1-or-later
#include "preprocess/gpu_pictures.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/device.h"
#include "base/failure.h"
#include "base/translated.h"
#include "cuda/tensor_ops.h"

namespace vlm {
namespace {

constexpr int64_t kChannels = 3;

// Taps and the GPU's copy of them.
struct TapsOnGpu {
  TapsOnGpu(const Taps& taps, at::Device device) : stride(taps.stride) {
    static_assert(sizeof(Taps::Span) == 2 * sizeof(int64_t));
    const auto count = static_cast<int64_t>(taps.spans.size());
    spans =
        at::from_blob(const_cast<Taps::Span*>(taps.spans.data()), {count, 2}, at::kLong).to(device);
    weights = at::from_blob(const_cast<int32_t*>(taps.weights.data()), {count, stride}, at::kInt)
                  .to(device);
  }

  TapsView view() const {
    return {static_cast<const Taps::Span*>(spans.const_data_ptr()),
            weights.const_data_ptr<int32_t>(), stride};
  }

  at::Tensor spans, weights;
  int64_t stride;
};

// The rows of the canvas that any of them reads.
std::pair<int64_t, int64_t> rows_read(const Taps& taps) {
  int64_t first = taps.spans.front().first;
  int64_t end = first;
  for (const Taps::Span& span : taps.spans) {
    first = std::min(first, span.first);
    end = std::max(end, span.first + span.count);
  }
  return {first, end - first};
}

class GpuPictures : public DevicePictures {
 public:
  explicit GpuPictures(at::Device device) : device_(device), stream_(work_stream(device)) {}

  int device() const override { return device_.index(); }

  Frame fetch(const GpuPicture& picture) override {
    return on_stream("fetching a picture", [&] {
      const at::Tensor pixels = upright(picture).cpu();
      const auto* bytes = pixels.const_data_ptr<uint8_t>();
      return Frame{picture.upright_width(), picture.upright_height(),
                   std::vector<uint8_t>(bytes, bytes + pixels.numel())};
    });
  }

  std::shared_ptr<const DevicePixels> make(const std::vector<PlannedPicture>& pictures,
                                           const PixelLevels& levels) override {
    return on_stream("preparing a picture", [&] {
      int64_t images = 0;
      for (const PlannedPicture& one : pictures) images += static_cast<int64_t>(one.plans.size());
      const ImagePlan& any = pictures.front().plans.front();
      const at::Tensor values = at::empty({images, kChannels, any.out_height, any.out_width},
                                          at::TensorOptions(device_).dtype(at::kFloat));
      const at::Tensor table =
          at::from_blob(const_cast<float*>(levels[0].data()), {kChannels, 256}, at::kFloat)
              .to(device_);
      int64_t image = 0;
      for (const PlannedPicture& one : pictures) {
        const at::Tensor pixels = upright(*one.picture);
        for (const ImagePlan& plan : one.plans) fill(values[image++], pixels, plan, table);
      }
      // Whoever takes them has another stream, and the pictures go back to their owners.
      require(cuda_module()->synchronize(current_stream(device_)), "preparing a picture");
      return std::make_shared<TorchPixels>(values);
    });
  }

 private:
  template <typename Work>
  auto on_stream(const char* doing, const Work& work) -> decltype(work()) {
    return translated(doing, [&] {
      const c10::InferenceMode mode;
      const c10::OptionalStreamGuard guard(stream_);
      return work();
    });
  }

  at::Tensor bytes(int64_t height, int64_t width) const {
    return at::empty({height, width, kChannels}, at::TensorOptions(device_).dtype(at::kByte));
  }

  // [height, width, channel]
  at::Tensor upright(const GpuPicture& picture) const {
    const at::Tensor pixels = bytes(picture.upright_height(), picture.upright_width());
    const UprightArgs args = {picture.layout, pixels.mutable_data_ptr<uint8_t>()};
    require(cuda_module()->upright(args, current_stream(device_)), "converting a picture");
    return pixels;
  }

  void fill(const at::Tensor& input, const at::Tensor& picture, const ImagePlan& plan,
            const at::Tensor& levels) const {
    AlongArgs along;
    along.left = plan.left;
    along.top = plan.top;
    along.levels = levels.const_data_ptr<float>();
    along.out = input.mutable_data_ptr<float>();
    along.out_width = plan.out_width;
    along.out_height = plan.out_height;
    std::optional<TapsOnGpu> down;
    at::Tensor columns;
    if (plan.window.width > 0 && plan.window.height > 0) {
      const Taps taps = resample_taps(plan.canvas_height, plan.height, plan.window.top,
                                      plan.window.height, plan.filter);
      const auto [first, rows] = rows_read(taps);
      columns = across(picture, plan, first, rows);
      along.in = columns.const_data_ptr<uint8_t>();
      along.first_row = first;
      along.taps = down.emplace(taps, device_).view();
      along.rows = plan.window.height;
      along.columns = plan.window.width;
    }
    require(cuda_module()->along(along, current_stream(device_)), "resizing a picture");
  }

  // Rows of the canvas, as wide as the window.
  at::Tensor across(const at::Tensor& picture, const ImagePlan& plan, int64_t first,
                    int64_t rows) const {
    const TapsOnGpu taps(resample_taps(plan.canvas_width, plan.width, plan.window.left,
                                       plan.window.width, plan.filter),
                         device_);
    const at::Tensor out = bytes(rows, plan.window.width);
    AcrossArgs args;
    args.rgb = picture.const_data_ptr<uint8_t>();
    args.width = plan.picture.width;
    args.height = plan.picture.height;
    args.left = plan.picture.left;
    args.top = plan.picture.top;
    std::copy(plan.fill.begin(), plan.fill.end(), args.fill);
    args.taps = taps.view();
    args.first_row = first;
    args.out = out.mutable_data_ptr<uint8_t>();
    args.rows = rows;
    args.columns = plan.window.width;
    require(cuda_module()->across(args, current_stream(device_)), "resizing a picture");
    return out;
  }

  const at::Device device_;
  const std::optional<c10::Stream> stream_;
};

}  // namespace

std::unique_ptr<DevicePictures> make_device_pictures(const std::string& device) {
  const at::Device resolved = resolve_device(device);
  return resolved.is_cpu() ? nullptr : std::make_unique<GpuPictures>(resolved);
}

}  // namespace vlm
