// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Arithmetic that a kernel and a CPU test share is marked so that nvcc compiles it for both sides;
// what calls on a kernel's own means, for the device alone.
#if defined(__CUDACC__)
#define VLM_HOST_DEVICE __host__ __device__
#define VLM_DEVICE __device__
#define VLM_DEVICE_UNROLL _Pragma("unroll")
#else
#define VLM_HOST_DEVICE
#define VLM_DEVICE
#define VLM_DEVICE_UNROLL
#endif
