// SPDX-License-Identifier: LGPL-2.1-or-later
// Products of few rows: one block for each tile of 16 weight rows (matvec_index.h). Its warps share
// the inputs out among them and read each weight once, straight into the registers of the matrix
// instruction (weight_chunks.cuh), whose eight columns are rows of x; their sums meet in shared
// memory, where pairs of outputs become results.
#include <type_traits>

#include "cuda/gate_function.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/matvec_index.h"
#include "cuda/rotation.cuh"
#include "cuda/weight_chunks.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kColumns = 8;      // rows of x in one instruction
constexpr int kChunksAhead = 2;  // of each weight row, loaded while as many are multiplied
// Elements between rows of normalized x beyond their length: rows then lie in different banks.
constexpr int64_t kRowGap = 32;

// Rows of x as a lane reads them: its column of a tile, zeros where there is none.
template <typename T>
struct Columns {
  const T* x;
  int64_t stride, inputs, rows;
  int column;

  __device__ uint4 load(int tile, int64_t input) const {
    const int64_t row = tile * kColumns + column;
    if (row >= rows || input >= inputs) return {};
    return *reinterpret_cast<const uint4*>(x + row * stride + input);
  }
};

// Normalized rows of x, into shared memory.
template <typename T>
__device__ void normalize_rows(const GpuMatVecArgs& args, T* normed) {
  __shared__ float parts[kNormRowsOnGpu][kWarps];
  constexpr int kWide = kPer16Bytes<T>;
  const int64_t size = args.matrix.inputs;
  const T* x = static_cast<const T*>(args.x);
  const T* weight = static_cast<const T*>(args.norm_weight);
  for (int64_t row = 0; row < args.rows; ++row) {
    float squares = 0;
    for (int64_t i = threadIdx.x * kWide; i < size; i += kThreads * kWide) {
      float values[kWide];
      widen_all<T>(*reinterpret_cast<const uint4*>(x + row * size + i), values);
#pragma unroll
      for (float value : values) squares += value * value;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % kWarpSize == 0) parts[row][threadIdx.x / kWarpSize] = squares;
  }
  __syncthreads();
  for (int64_t row = 0; row < args.rows; ++row) {
    float squares = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) squares += parts[row][warp];
    const float scale = 1 / sqrtf(squares / static_cast<float>(size) + args.eps);
    T* out = normed + row * (size + kRowGap);
    for (int64_t i = threadIdx.x * kWide; i < size; i += kThreads * kWide) {
      float values[kWide], weights[kWide];
      widen_all<T>(*reinterpret_cast<const uint4*>(x + row * size + i), values);
      widen_all<T>(*reinterpret_cast<const uint4*>(weight + i), weights);
      uint4 bits;
      T* results = reinterpret_cast<T*>(&bits);
#pragma unroll
      for (int k = 0; k < kWide; ++k) {
        store(weights[k] * rounded<T>(values[k] * scale), results + k);
      }
      *reinterpret_cast<uint4*>(out + i) = bits;
    }
  }
  __syncthreads();
}

template <typename T>
__device__ void add(float product, T* sum) {
  store(widen(*sum) + rounded<T>(product), sum);
}

// One output pair of one row: what the two products become.
template <typename T>
__device__ void put(const GpuMatVecArgs& args, int64_t row, OutputPair at, float low, float high) {
  T* out = static_cast<T*>(args.out);
  const int64_t outputs = args.matrix.outputs;
  switch (args.output) {
    case MatVecOutput::kStore:
      if (at.low >= 0) store(low, out + row * outputs + at.low);
      if (at.high >= 0) store(high, out + row * outputs + at.high);
      break;
    case MatVecOutput::kAdd:
      if (at.low >= 0) add<T>(low, out + row * outputs + at.low);
      if (at.high >= 0) add<T>(high, out + row * outputs + at.high);
      break;
    case MatVecOutput::kLogits: {
      auto* logits = static_cast<float*>(args.out) + row * outputs;
      if (at.low >= 0) logits[at.low] = rounded<T>(low);
      if (at.high >= 0) logits[at.high] = rounded<T>(high);
      break;
    }
    case MatVecOutput::kGate:
      if (at.low >= 0) {
        store(gated<T>(args.function, rounded<T>(low), rounded<T>(high)),
              out + row * (outputs / 2) + at.low);
      }
      break;
    case MatVecOutput::kRotate: {
      if (at.low < 0) break;
      const RotateTarget& target = args.target;
      const int64_t dim = target.head_dim, head = at.low / dim, i = at.low % dim;
      RotatedPair pair = {rounded<T>(low), rounded<T>(high)};
      if (head < target.heads + target.kv_heads) {
        pair = rotate_pair<T>(target, row, i, pair.low, pair.high);
      }
      T* to = out + (row * target.heads + head) * dim;
      if (head >= target.heads) {
        const bool key = head < target.heads + target.kv_heads;
        to = static_cast<T*>(key ? target.k_cache : target.v_cache) +
             target_offset(target, row, (head - target.heads) % target.kv_heads);
      }
      store(pair.low, to + i);
      store(pair.high, to + dim / 2 + i);
      break;
    }
  }
}

template <typename T>
__device__ float bias_of(const GpuMatrix& matrix, int64_t output) {
  return matrix.bias == nullptr ? 0 : widen(static_cast<const T*>(matrix.bias)[output]);
}

// Adds up the warps' sums and hands over each pair.
template <typename T, typename Chunks, int kTiles>
__device__ void finish(const GpuMatVecArgs& args, TileSums (&sums)[kTiles]) {
  __shared__ float all[kTiles][kWarps][2 * kTilePairs * kColumns];
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      all[tile][warp][(g + i / 2 * kTilePairs) * kColumns + t * 2 + i % 2] = sums[tile][i];
    }
  }
  __syncthreads();
  for (int place = threadIdx.x; place < kTiles * kTilePairs * kColumns; place += kThreads) {
    const int pair = place % kTilePairs, row = place / kTilePairs;
    if (row >= args.rows) break;
    const OutputPair at = output_pair(args, blockIdx.x, pair);
    float results[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t output = half == 0 ? at.low : at.high;
      if (output < 0) continue;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        sum += all[row / kColumns][w][(pair + half * kTilePairs) * kColumns + row % kColumns];
      }
      results[half] = sum * Chunks::scale(args.matrix, output) + bias_of<T>(args.matrix, output);
    }
    put<T>(args, row, at, results[0], results[1]);
  }
}

template <typename T, typename Chunks, int kTiles, bool kNorm>
__global__ void __launch_bounds__(kThreads) matvec_kernel(GpuMatVecArgs args) {
  extern __shared__ uint4 shared[];
  T* normed = reinterpret_cast<T*>(shared);
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const OutputPair mine = output_pair(args, blockIdx.x, lane / 4);
  const Chunks chunks(args.matrix, mine.low, mine.high, lane % 4);
  const int64_t count = ceil_div(args.matrix.inputs, Chunks::kInputs);

  uint4 low[kChunksAhead], high[kChunksAhead];
  const auto fetch = [&](int64_t first) {
#pragma unroll
    for (int i = 0; i < kChunksAhead; ++i) {
      low[i] = chunks.load(chunks.low, first + i);
      high[i] = chunks.load(chunks.high, first + i);
    }
  };
  int64_t first = warp * kChunksAhead;
  let_next_start();
  fetch(first);  // weights: there before anything that this step computes
  wait_for_inputs();

  Columns<T> x = {static_cast<const T*>(args.x), args.matrix.inputs, args.matrix.inputs, args.rows,
                  lane / 4};
  if constexpr (kNorm) {
    normalize_rows<T>(args, normed);
    x.x = normed;
    x.stride += kRowGap;
  }
  TileSums sums[kTiles] = {};
  while (first < count) {
    uint4 now_low[kChunksAhead], now_high[kChunksAhead];
#pragma unroll
    for (int i = 0; i < kChunksAhead; ++i) {
      now_low[i] = low[i];
      now_high[i] = high[i];
    }
    const int64_t now = first;
    first += kWarps * kChunksAhead;
    if (first < count) fetch(first);
#pragma unroll
    for (int i = 0; i < kChunksAhead; ++i) {
      chunks.multiply(now_low[i], now_high[i], now + i, x, sums);
    }
  }
  finish<T, Chunks, kTiles>(args, sums);
}

template <typename T, typename Chunks, int kTiles, bool kNorm>
bool run(const GpuMatVecArgs& args, void* stream) {
  const auto kernel = matvec_kernel<T, Chunks, kTiles, kNorm>;
  size_t bytes = 0;
  if (kNorm) {
    bytes = static_cast<size_t>(args.rows * (args.matrix.inputs + kRowGap)) * sizeof(T);
    const size_t most = gpu_traits().shared_memory / 2;
    if (bytes > most) return false;
    if (!succeeded(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(bytes)))) {
      return false;
    }
  }
  return launch(kernel, dim3(static_cast<unsigned>(tile_count(args))), kThreads, bytes, stream,
                args);
}

template <typename T, typename Chunks>
bool run_for_rows(const GpuMatVecArgs& args, void* stream) {
  if (args.norm_weight != nullptr) return run<T, Chunks, 1, true>(args, stream);
  if (args.rows <= kColumns) return run<T, Chunks, 1, false>(args, stream);
  if (args.rows <= 2 * kColumns) return run<T, Chunks, 2, false>(args, stream);
  return run<T, Chunks, 4, false>(args, stream);
}

template <typename T>
bool run_for_format(const GpuMatVecArgs& args, void* stream) {
  if (!args.matrix.packed) return run_for_rows<T, PlainChunks<T>>(args, stream);
  if (args.matrix.format == PackedFormat::kInt8) {
    return run_for_rows<T, Int8Chunks<T>>(args, stream);
  }
  return run_for_rows<T, Int4Chunks<T>>(args, stream);
}

}  // namespace

bool matvec_cuda(const GpuMatVecArgs& args, void* stream) {
  const int64_t most = args.norm_weight != nullptr ? kNormRowsOnGpu : kMatVecRowsOnGpu;
  if (args.rows < 1 || args.rows > most || args.matrix.inputs % 8 != 0) return false;
  if (gpu_traits().major < 8) return false;
  if (args.output == MatVecOutput::kRotate && args.target.head_dim % 2 != 0) return false;
  if (args.type == KernelType::kBFloat16) return run_for_format<__nv_bfloat16>(args, stream);
  if (args.type == KernelType::kFloat16) return run_for_format<__half>(args, stream);
  return false;
}

}  // namespace vlm
