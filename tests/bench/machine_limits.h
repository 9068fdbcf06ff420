// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <nlohmann/json.hpp>

namespace bench {

/// What the CPU reaches with as many threads as libtorch uses: `read_gb_s`, reading memory beyond
/// every cache once; `matmul_gflops`, libtorch's float32 product of large matrices. Best of a few
/// tries each, about two seconds.
nlohmann::json measure_limits();

}  // namespace bench
