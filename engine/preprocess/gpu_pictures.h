// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "preprocess/device_pictures.h"

namespace vlm {

/// Pixels on libtorch's GPU.
struct TorchPixels : DevicePixels {
  explicit TorchPixels(at::Tensor values_) : values(std::move(values_)) {}
  const at::Tensor values;  ///< float32 [images, 3, height, width]
};

/// For the engine that runs on `device` (ModelInfo::device); null where that is no GPU.
std::unique_ptr<DevicePictures> make_device_pictures(const std::string& device);

}  // namespace vlm
