// SPDX-License-Identifier: LGPL-2.1-or-later
// Decode attention that reads keys and values 16 bytes a thread: kLanes neighbouring threads have
// one position of one kv head, a block's groups of so many take positions in turn, for kHeads query
// heads at once. Each row's past is cut into parts, one block each; the part that ends last puts
// them together.
#include <cmath>

#include "cuda/attention_index.h"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace vlm {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kPositions = 6;   // of a group in flight
constexpr int kMostParts = 64;  // that are put together

// What was seen of some positions: the highest score, the sum of exponentials below it, and this
// lane's part of the weighted values.
template <int kWide>
struct Seen {
  float top = -INFINITY;
  float total = 0;
  float sums[kWide] = {};

  __device__ void scale_to(float higher) {
    const float keep = top == -INFINITY ? 0 : __expf(top - higher);
    total *= keep;
#pragma unroll
    for (float& sum : sums) sum *= keep;
    top = higher;
  }
};

struct Place {
  int64_t row, kv_head, first_head, begin, end;
};

__device__ Place my_place(const SplitAttentionArgs& args, int heads_at_once) {
  const PagedAttentionArgs& base = args.base;
  const int64_t group = base.heads / base.kv_heads;
  const int64_t blocks = (group + heads_at_once - 1) / heads_at_once;
  Place place;
  place.row = blockIdx.z;
  place.kv_head = blockIdx.x / blocks;
  place.first_head = place.kv_head * group + blockIdx.x % blocks * heads_at_once;
  const int64_t length = base.lengths[place.row];
  const int64_t first = first_visible(length, base.window);
  const int64_t part = part_size(length - first, args.splits);
  place.begin = first + blockIdx.y * part;
  place.end = place.begin + part < length ? place.begin + part : length;
  return place;
}

// Keys and values of kPositions positions from `at` on, a group's apart; zeros where there are
// none.
template <typename T, int kLanes>
struct Fetched {
  static constexpr int kGroups = kThreads / kLanes;
  uint4 keys[kPositions], values[kPositions];

  // From the second-level cache: what is written meanwhile must not stay in the first.
  __device__ void fetch(const PagedAttentionArgs& args, const Place& place, int64_t at, int64_t end,
                        int element, int p) {
    keys[p] = {};
    values[p] = {};
    const int64_t position = at + p * kGroups;
    if (position >= end || element >= args.head_dim) return;
    const int32_t slot = args.slot_table[place.row * args.table_stride + position];
    const int64_t offset =
        cache_offset(slot, place.kv_head, args.kv_heads, args.head_dim) + element;
    keys[p] = __ldcg(reinterpret_cast<const uint4*>(static_cast<const T*>(args.k_cache) + offset));
    values[p] =
        __ldcg(reinterpret_cast<const uint4*>(static_cast<const T*>(args.v_cache) + offset));
  }
};

template <typename T, int kLanes, int kHeads>
__device__ void walk(const PagedAttentionArgs& args, const Place& place, int heads,
                     Seen<kPer16Bytes<T>> (&seen)[kHeads]) {
  constexpr int kWide = kPer16Bytes<T>;
  constexpr int kGroups = kThreads / kLanes;
  const int group = threadIdx.x / kLanes;
  const int element = threadIdx.x % kLanes * kWide;
  const int64_t newest = args.lengths[place.row] - 1;
  Fetched<T, kLanes> fetched;
  int64_t at = place.begin + group;
  // All but the newest position was there before this step.
#pragma unroll
  for (int p = 0; p < kPositions; ++p) {
    fetched.fetch(args, place, at, place.end < newest ? place.end : newest, element, p);
  }
  wait_for_inputs();
#pragma unroll
  for (int p = 0; p < kPositions; ++p) {
    if (at + p * kGroups == newest) fetched.fetch(args, place, at, place.end, element, p);
  }
  float q[kHeads][kWide];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    uint4 bits = {};
    if (element < args.head_dim && h < heads) {
      bits = *reinterpret_cast<const uint4*>(
          static_cast<const T*>(args.q) +
          head_offset(place.row, place.first_head + h, args.heads, args.head_dim) + element);
    }
    widen_bits<T>(bits, q[h]);
#pragma unroll
    for (float& value : q[h]) value *= args.scale;
  }
  while (at - group < place.end) {
    const int64_t next = at + kGroups * kPositions;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      float scores[kPositions];
      float top = seen[h].top;
#pragma unroll
      for (int p = 0; p < kPositions; ++p) {
        float key[kWide];
        widen_bits<T>(fetched.keys[p], key);
        float score = 0;
#pragma unroll
        for (int i = 0; i < kWide; ++i) score += q[h][i] * key[i];
#pragma unroll
        for (int offset = kLanes / 2; offset > 0; offset /= 2) {
          score += __shfl_xor_sync(kAllLanes, score, offset);
        }
        scores[p] = at + p * kGroups < place.end ? score : -INFINITY;
        top = fmaxf(top, scores[p]);
      }
      if (top == -INFINITY) continue;  // nothing visible yet
      seen[h].scale_to(top);
#pragma unroll
      for (int p = 0; p < kPositions; ++p) {
        const float weight = __expf(scores[p] - top);
        float value[kWide];
        widen_bits<T>(fetched.values[p], value);
        seen[h].total += weight;
#pragma unroll
        for (int i = 0; i < kWide; ++i) seen[h].sums[i] += weight * value[i];
      }
    }
    at = next;
#pragma unroll
    for (int p = 0; p < kPositions; ++p) fetched.fetch(args, place, at, place.end, element, p);
  }
}

// Partial results of one row and head: part i has its top, its total and its sums from
// first + i · stride on.
struct Parts {
  const float* first;
  int64_t stride;
  int count;  // at most kMostParts
};

// Puts them together; `give(element, value)` gets what comes of each element. The whole block
// calls.
template <typename Give>
__device__ void merge(const Parts& parts, int dim, bool divide, const Give& give) {
  __shared__ float keeps[kMostParts];
  const int lane = threadIdx.x % kWarpSize;
  float tops[kMostParts / kWarpSize], totals[kMostParts / kWarpSize];
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kMostParts / kWarpSize; ++i) {
    const int part = lane + i * kWarpSize;
    tops[i] = part < parts.count ? parts.first[part * parts.stride] : -INFINITY;
    totals[i] = part < parts.count ? parts.first[part * parts.stride + 1] : 0;
    top = fmaxf(top, tops[i]);
  }
  top = warp_max(top);
  float total = 0;
#pragma unroll
  for (int i = 0; i < kMostParts / kWarpSize; ++i) {
    const float keep = tops[i] == -INFINITY ? 0 : __expf(tops[i] - top);
    total += keep * totals[i];
    if (threadIdx.x < kWarpSize) keeps[lane + i * kWarpSize] = keep;
  }
  total = warp_sum(total);
  __syncthreads();
  const float factor = divide ? 1 / total : 1;
  for (int element = threadIdx.x; element < dim; element += kThreads) {
    float sum = 0;
#pragma unroll 8
    for (int part = 0; part < parts.count; ++part) {
      sum += keeps[part] * parts.first[part * parts.stride + 2 + element];
    }
    give(element, sum * factor);
  }
  if (threadIdx.x == 0) give(-2, top);
  if (threadIdx.x == 0) give(-1, total);
  __syncthreads();
}

__device__ float* partial(const SplitAttentionArgs& args, int64_t row, int64_t head, int64_t part) {
  const int64_t size = args.base.head_dim + 2;
  return args.partials + ((row * args.base.heads + head) * args.splits + part) * size;
}

// Whether this block is the last of its row and heads; the others' partial results are visible
// then.
__device__ bool last_to_arrive(const SplitAttentionArgs& args, const Place& place) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t* arrivals = args.arrivals + place.row * args.base.heads + place.first_head;
    last = atomicAdd(arrivals, 1) == static_cast<int32_t>(args.splits) - 1;
    if (last) *arrivals = 0;
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

template <typename T, int kLanes, int kHeads>
__global__ void __launch_bounds__(kThreads) split_attention_kernel(SplitAttentionArgs args) {
  constexpr int kWide = kPer16Bytes<T>;
  constexpr int kGroups = kThreads / kLanes;
  constexpr int kStride = kLanes * kWide + 2;
  static_assert(kGroups <= kMostParts);
  __shared__ float shared[kGroups][kHeads][kStride];
  const PagedAttentionArgs& base = args.base;
  let_next_start();
  const Place place = my_place(args, kHeads);
  const int64_t left = (place.kv_head + 1) * (base.heads / base.kv_heads) - place.first_head;
  const int heads = left < kHeads ? static_cast<int>(left) : kHeads;

  Seen<kWide> seen[kHeads];
  walk<T, kLanes, kHeads>(base, place, heads, seen);
  const int group = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    float* mine = shared[group][h];
#pragma unroll
    for (int i = 0; i < kWide; ++i) mine[2 + lane * kWide + i] = seen[h].sums[i];
    if (lane == 0) {
      mine[0] = seen[h].top;
      mine[1] = seen[h].total;
    }
  }
  __syncthreads();

  const int dim = static_cast<int>(base.head_dim);
  const bool whole = args.splits == 1;
  const auto put = [&](int64_t head) {
    T* out = static_cast<T*>(base.out) + head_offset(place.row, head, base.heads, dim);
    return [=](int element, float value) {
      if (element >= 0) store(value, out + element);
    };
  };
  for (int h = 0; h < heads; ++h) {
    const Parts groups = {shared[0][h], kHeads * kStride, kGroups};
    if (whole) {
      merge(groups, dim, true, put(place.first_head + h));
    } else {
      float* part = partial(args, place.row, place.first_head + h, blockIdx.y);
      merge(groups, dim, false, [=](int element, float value) { part[2 + element] = value; });
    }
  }
  if (whole || !last_to_arrive(args, place)) return;
  for (int h = 0; h < heads; ++h) {
    const int64_t head = place.first_head + h;
    const Parts parts = {partial(args, place.row, head, 0), dim + 2, static_cast<int>(args.splits)};
    merge(parts, dim, true, put(head));
  }
}

template <typename T, int kLanes, int kHeads>
bool run(const SplitAttentionArgs& args, void* stream) {
  const PagedAttentionArgs& base = args.base;
  const int64_t group = base.heads / base.kv_heads;
  const dim3 grid(static_cast<unsigned>(base.kv_heads * ((group + kHeads - 1) / kHeads)),
                  static_cast<unsigned>(args.splits), static_cast<unsigned>(base.rows));
  return launch(split_attention_kernel<T, kLanes, kHeads>, grid, kThreads, 0, stream, args);
}

template <typename T, int kLanes>
bool run_for_group(const SplitAttentionArgs& args, void* stream) {
  if (args.base.heads == args.base.kv_heads) return run<T, kLanes, 1>(args, stream);
  return run<T, kLanes, 4>(args, stream);
}

template <typename T>
bool run_for_dim(const SplitAttentionArgs& args, void* stream) {
  constexpr int64_t kWide = kPer16Bytes<T>;
  if (args.base.head_dim % kWide != 0) return false;
  const int64_t lanes = args.base.head_dim / kWide;
  if (lanes <= 4) return run_for_group<T, 4>(args, stream);
  if (lanes <= 8) return run_for_group<T, 8>(args, stream);
  if (lanes <= 16) return run_for_group<T, 16>(args, stream);
  if (lanes <= 32) return run_for_group<T, 32>(args, stream);
  return false;
}

}  // namespace

bool split_attention_cuda(const SplitAttentionArgs& args, void* stream) {
  if (args.base.rows < 1 || args.base.rows > kMaxGridY) return false;
  if (args.splits < 1 || args.splits > kMostParts) return false;
  return with_type(args.base.type, [&](auto* type) {
    return run_for_dim<std::remove_pointer_t<decltype(type)>>(args, stream);
  });
}

}  // namespace vlm
