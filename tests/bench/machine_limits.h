// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace bench {

/// What the CPU reaches with as many threads as libtorch uses: `read_gb_s`, reading memory beyond
/// every cache once; `matmul_gflops`, libtorch's float32 product of large matrices. Best of a few
/// tries each, about two seconds.
nlohmann::json measure_limits();

/// The same of a GPU that libtorch knows already: `read_gb_s`, summing up a few GB; `copy_gb_s`,
/// bytes read and written; `matmul_gflops`, libtorch's bfloat16 product of random matrices.
nlohmann::json measure_gpu_limits(const std::string& device);

}  // namespace bench
