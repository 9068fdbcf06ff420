// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "vlm/error.h"

namespace vlm {

/// Writes tensors (float32 or int64) as one safetensors file: whole or not at all. Errors: kIo.
Status write_safetensors(const std::string& path, const std::map<std::string, at::Tensor>& tensors);

}  // namespace vlm
