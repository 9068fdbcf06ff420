// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Arithmetic that a kernel and a CPU test share is marked so that nvcc compiles it for both sides.
#if defined(__CUDACC__)
#define VLM_HOST_DEVICE __host__ __device__
#else
#define VLM_HOST_DEVICE
#endif
