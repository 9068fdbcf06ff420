// SPDX-License-Identifier: LGPL-2.1-or-later
// Products of few rows: blocks take tiles of 16 weight rows (matvec_index.h) in turn. A block's
// warps share the inputs out among them and read each weight once, straight into the registers of
// the matrix instruction (weight_chunks.cuh), whose eight columns are rows of x; their sums meet in
// shared memory, where pairs of outputs become results. The next weights, of the next tile too, are
// always on their way meanwhile.
#include <algorithm>
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
constexpr int kBlocksAtOnce = 2;  // that the registers of a multiprocessor must do for
constexpr int kColumns = 8;       // rows of x in one instruction
// Elements between rows of normalized x beyond their length: rows then lie in different banks.
constexpr int64_t kRowGap = 32;

// Rows of x as a lane reads them: its column of each tile, zeros where there is none.
template <typename T, int kTiles>
struct Columns {
  const T* rows[kTiles];
  int left[kTiles];  // inputs

  __device__ Columns(const T* x, int64_t stride, const GpuMatVecArgs& args, int column) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int row = tile * kColumns + column;
      const bool there = row < args.rows;
      rows[tile] = x + (there ? row * stride : 0);
      left[tile] = there ? static_cast<int>(args.matrix.inputs) : 0;
    }
  }
  __device__ uint4 load(int tile, int input) const {
    return input < left[tile] ? *reinterpret_cast<const uint4*>(rows[tile] + input) : uint4{};
  }
};

// Normalized rows of x, into shared memory. Fetches the norm's weights before the wait.
template <typename T>
struct RowNorm {
  static constexpr int kWide = kPer16Bytes<T>;
  static constexpr int kKept = 2;

  const T *x, *weight;
  int64_t size;
  uint4 kept[kKept];

  __device__ explicit RowNorm(const GpuMatVecArgs& args)
      : x(static_cast<const T*>(args.x)),
        weight(static_cast<const T*>(args.norm_weight)),
        size(args.matrix.inputs) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int64_t at = place(i);
      if (at < size) kept[i] = *reinterpret_cast<const uint4*>(weight + at);
    }
  }
  __device__ static int64_t place(int i) {
    return (int64_t{i} * kThreads + threadIdx.x) * kWide;
  }

  __device__ void normalize(const GpuMatVecArgs& args, T* normed) const {
    __shared__ float parts[kNormRowsOnGpu][kWarps];
    for (int64_t row = 0; row < args.rows; ++row) {
      float squares = 0;
      for (int i = 0; place(i) < size; ++i) {
        float values[kWide];
        widen_all<T>(x + row * size + place(i), values);
#pragma unroll
        for (const float value : values) squares += value * value;
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
      const T* from = x + row * size;
      T* to = normed + row * (size + kRowGap);
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        float weights[kWide];
        widen_bits<T>(kept[i], weights);
        if (place(i) < size) put(from + place(i), weights, scale, to + place(i));
      }
      for (int i = kKept; place(i) < size; ++i) {
        float weights[kWide];
        widen_all<T>(weight + place(i), weights);
        put(from + place(i), weights, scale, to + place(i));
      }
    }
    __syncthreads();
  }

  __device__ static void put(const T* from, const float (&weights)[kWide], float scale, T* to) {
    float values[kWide];
    widen_all<T>(from, values);
#pragma unroll
    for (int k = 0; k < kWide; ++k) values[k] = weights[k] * rounded<T>(values[k] * scale);
    store_all<T>(values, to);
  }
};

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
      const int dim = static_cast<int>(target.head_dim);
      const int head = at.low / dim, i = at.low % dim;
      float lows[1] = {rounded<T>(low)}, highs[1] = {rounded<T>(high)};
      if (head < target.heads + target.kv_heads) rotate_pairs<T>(target, row, i, lows, highs);
      T* to = out + (row * target.heads + head) * dim;
      if (head >= target.heads) {
        const bool key = head < target.heads + target.kv_heads;
        to = static_cast<T*>(key ? target.k_cache : target.v_cache) +
             target_offset(target, row, (head - target.heads) % target.kv_heads);
      }
      store(lows[0], to + i);
      store(highs[0], to + dim / 2 + i);
      break;
    }
  }
}

template <typename T>
__device__ float bias_of(const GpuMatrix& matrix, int64_t output) {
  return matrix.bias == nullptr ? 0 : widen(static_cast<const T*>(matrix.bias)[output]);
}

// The warps' sums of one tile for one batch of rows.
template <int kTiles>
using AllSums = float[kTiles][kWarps][2 * kTilePairs * kColumns];

// Adds up the warps' sums and hands over each pair. `all` is shared memory that the call before the
// last one may still have been reading when this one began, not the last one.
template <typename T, typename Chunks, int kTiles>
__device__ void finish(const GpuMatVecArgs& args, const TileMap& map, int weight_tile,
                       const TileSums (&sums)[kTiles], AllSums<kTiles>& all) {
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
  static_assert(kTiles * kTilePairs * kColumns <= kThreads);
  const int pair = static_cast<int>(threadIdx.x) % kTilePairs;
  const int row = static_cast<int>(threadIdx.x) / kTilePairs;
  if (row < kTiles * kColumns && row < args.rows) {
    const OutputPair at = map.pair(weight_tile, pair);
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

// What a lane loads, tile by tile and round by round, ahead of what it computes.
template <typename Chunks>
struct Stream {
  static constexpr int kRound = kWarps * Chunks::kAhead;

  const GpuMatVecArgs& args;
  TileMap map;
  int rounds, tile, round = 0;
  Chunks chunks;

  __device__ explicit Stream(const GpuMatVecArgs& all)
      : args(all),
        map(all),
        rounds(ceil_div(static_cast<int>(all.matrix.inputs), Chunks::kInputs * kRound)),
        tile(static_cast<int>(blockIdx.x)),
        chunks(of_tile()) {}

  __device__ Chunks of_tile() const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const OutputPair rows = tile < map.tiles ? map.pair(tile, lane / 4) : OutputPair{-1, -1};
    return Chunks(args.matrix, rows, lane % 4);
  }
  // The first of this warp's chunks in a round.
  __device__ static int first(int of_round) {
    return of_round * kRound + static_cast<int>(threadIdx.x) / kWarpSize * Chunks::kAhead;
  }
  __device__ typename Chunks::Bits load(int i) const { return chunks.load(first(round) + i); }
  __device__ void announce(int i) const { chunks.announce(first(round) + i); }
  __device__ void advance() {
    if (++round < rounds) return;
    round = 0;
    tile += static_cast<int>(gridDim.x);
    chunks = of_tile();
  }
};

template <typename T, typename Chunks, int kTiles, bool kNorm>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce) matvec_kernel(GpuMatVecArgs args) {
  extern __shared__ uint4 shared[];
  __shared__ AllSums<kTiles> all[2];
  constexpr int kAhead = Chunks::kAhead;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;

  // Weights and what else nobody writes is on its way before the wait.
  Stream<Chunks> stream(args);
  typename Chunks::Bits ahead[kAhead];
  let_next_start();
#pragma unroll
  for (int i = 0; i < kAhead; ++i) ahead[i] = stream.load(i);
  Stream<Chunks> announced = stream;
  announced.advance();
#pragma unroll
  for (int i = 0; i < kAhead; ++i) announced.announce(i);
  const T* source = static_cast<const T*>(args.x);
  int64_t stride = args.matrix.inputs;
  if constexpr (kNorm) {
    const RowNorm<T> norm(args);
    wait_for_inputs();
    T* normed = reinterpret_cast<T*>(shared);
    norm.normalize(args, normed);
    source = normed;
    stride += kRowGap;
  } else {
    wait_for_inputs();
  }
  const Columns<T, kTiles> x(source, stride, args, lane / 4);
  int turn = 0;
#pragma unroll 1
  for (int tile = static_cast<int>(blockIdx.x); tile < stream.map.tiles;
       tile += static_cast<int>(gridDim.x)) {
    TileSums sums[kTiles] = {};
#pragma unroll 1
    for (int round = 0; round < stream.rounds; ++round) {
      stream.advance();
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const typename Chunks::Bits now = ahead[i];
        ahead[i] = stream.load(i);
        Chunks::multiply(now, stream.first(round) + i, lane % 4, x, sums);
      }
    }
    finish<T, Chunks, kTiles>(args, stream.map, tile, sums, all[turn]);
    turn ^= 1;
  }
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
  // As many blocks as there is room for at once; each then takes tiles in turn.
  int at_once = 0;
  if (!succeeded(
          cudaOccupancyMaxActiveBlocksPerMultiprocessor(&at_once, kernel, kThreads, bytes))) {
    return false;
  }
  const int blocks = std::min(TileMap(args).tiles, at_once * gpu_traits().processors);
  return launch(kernel, dim3(static_cast<unsigned>(blocks)), kThreads, bytes, stream, args);
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
