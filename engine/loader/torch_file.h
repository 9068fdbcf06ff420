// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

#include "loader/tensor_file.h"

namespace vlm {

/// Maps an untrusted file of torch.save (torch 1.6 or later) that holds a state dict, without
/// reading its tensors and without running anything that it says. Tensors may share a storage;
/// those that are not contiguous are copied. The checksums of tensors are not compared, as they are
/// in no other kind of checkpoint. Throws Failure naming file, tensor, what was expected and found.
TensorFile map_torch_file(const std::string& path);

}  // namespace vlm
