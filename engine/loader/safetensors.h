// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

#include "loader/tensor_file.h"

namespace vlm {

/// Maps an untrusted file without reading its tensors; none of them overlaps another, none leaves a
/// gap. Throws Failure naming file, tensor, what was expected and found.
TensorFile map_safetensors(const std::string& path);

}  // namespace vlm
