// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

namespace vlm {

/// Element type of a kernel's tensors.
enum class KernelType { kFloat32, kBFloat16, kFloat16 };

}  // namespace vlm
