// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace bench {

/// The sum of `count` words, a multiple of 32: so many sums at a time that reading alone limits it.
/// Reentrant.
uint64_t sum_words(const uint64_t* values, int64_t count);

/// GB/s at which the CPU reads memory beyond its caches, in large pages where there are any, with
/// as many threads as libtorch uses: the best of a few passes over `mib`, which are given back.
/// About half a second.
double read_gb_s(int64_t mib = 512);

/// GFLOP/s of the CPU's product of large matrices of this type, libtorch's or our own, whichever is
/// faster: the best of a few tries, a second or so. kChar: bfloat16 numbers multiplied as w8a8 and
/// w4a8 do it, the faster of the two; nothing where the processor has no such products.
std::optional<double> matmul_gflops(c10::ScalarType type);

/// What a GPU reaches that libtorch knows already: `read_gb_s`, summing up a few GB; `copy_gb_s`,
/// bytes read and written; `matmul_gflops`, libtorch's bfloat16 product of random matrices.
nlohmann::json measure_gpu_limits(const std::string& device);

}  // namespace bench
