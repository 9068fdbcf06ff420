// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_type.h"
#include "kernels/packed_matrix.h"
#include "kernels/paged_attention.h"
#include "preprocess/taps.h"
#include "vlm/gpu_picture.h"

namespace vlm {

// What the GPU module's kernels take. All pointers lie on one GPU; tensors are contiguous but where
// a stride (in elements) is named; `T` is the element type that `type` names, and every result is
// rounded to T where the reference rounds. Each function enqueues on a CUDA stream and returns;
// false: it does not cover these arguments (or this GPU), and nothing was enqueued. Reentrant.

/// Decode attention whose past is cut into parts that run side by side.
struct SplitAttentionArgs {
  PagedAttentionArgs base;
  int64_t splits = 1;           ///< parts of each row's past
  float* partials = nullptr;    ///< split_attention_floats() of them; unused where splits is 1
  int32_t* arrivals = nullptr;  ///< rows · heads of them, zero before and after each call

  int64_t floats() const { return base.rows * base.heads * splits * (base.head_dim + 2); }
};

/// sum = x + delta; out = weight · sum / √(mean(sum²) + eps).
struct AddNormArgs {
  const void* x = nullptr;       ///< [rows, size]
  const void* delta = nullptr;   ///< [rows, size]; null: sum is x, and is not written
  void* sum = nullptr;           ///< [rows, size]; may be x
  const void* weight = nullptr;  ///< [size]
  void* out = nullptr;           ///< [rows, size]
  int64_t rows = 0;
  int64_t size = 0;
  float eps = 0;
  KernelType type = KernelType::kFloat32;
};

/// Where the rotated keys and the values of new tokens go, and by which angles q and k turn.
struct RotateTarget {
  const void* cos = nullptr;        ///< T [angles, head_dim]
  const void* sin = nullptr;        ///< T [angles, head_dim]
  const int64_t* angles = nullptr;  ///< [rows]: which one is a row's; null: its own number
  const int64_t* slots = nullptr;   ///< [rows]
  void* k_cache = nullptr;          ///< [slots, kv_heads, head_dim]
  void* v_cache = nullptr;          ///< [slots, kv_heads, head_dim]
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

/// Rotates q and k in place and copies k and v into the cache.
struct RotateStoreArgs {
  void* q = nullptr;        ///< [rows, heads, head_dim], rows q_stride apart
  void* k = nullptr;        ///< [rows, kv_heads, head_dim], rows k_stride apart
  const void* v = nullptr;  ///< the same, v_stride
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t rows = 0;
  RotateTarget target;
  KernelType type = KernelType::kFloat32;
};

/// The functions between gate and up (loader/config.h).
enum class GateFunction { kGelu, kGeluTanh, kQuickGelu, kSilu, kRelu };

/// out = function(gate) · up; function(gate) where there is no up.
struct GateArgs {
  const void* gate = nullptr;  ///< [rows, size], rows gate_stride apart
  const void* up = nullptr;    ///< [rows, size], rows up_stride apart; or null
  void* out = nullptr;         ///< [rows, size]
  int64_t gate_stride = 0;
  int64_t up_stride = 0;
  int64_t rows = 0;
  int64_t size = 0;
  GateFunction function = GateFunction::kSilu;
  KernelType type = KernelType::kFloat32;
};

/// out[row] = table[ids[row]].
struct EmbedArgs {
  const void* table = nullptr;   ///< [vocab_size, size]
  const int64_t* ids = nullptr;  ///< [rows]
  void* out = nullptr;           ///< [rows, size]
  int64_t rows = 0;
  int64_t size = 0;
  KernelType type = KernelType::kFloat32;
};

/// The likeliest token of each row that is not banned (the lowest id among equals) and its
/// log-probability under the whole distribution: no number where a logit is none, or where nothing
/// is left.
struct PickArgs {
  const float* logits = nullptr;    ///< [rows, vocab_size]
  const int64_t* banned = nullptr;  ///< [rows, banned_size], -1 for no id; may be null
  int64_t banned_size = 0;
  int64_t* tokens = nullptr;  ///< [rows]
  float* logprobs = nullptr;  ///< [rows]
  int64_t rows = 0;
  int64_t vocab_size = 0;
};

inline constexpr int kMostSampleBans = 8;
inline constexpr int64_t kMostSampledIds = int64_t{1} << 20;

/// How a row's token is chosen (Choice in scheduler/step_plan.h), as the device keeps it.
struct SampleRow {
  // Randomness: a pure function of these three (kernels/random.h).
  uint64_t seed = 0;
  uint64_t sequence = 0;
  uint32_t token = 0;

  int32_t sample = 0;  ///< 0: the likeliest, and no warper counts
  float penalty = 1;   ///< of the ids seen
  float temperature = 1;
  int32_t top_k = 0;  ///< 0: all
  /// What the least likely tokens that top-p takes out have together at most, as a share of the
  /// whole; negative: nothing is taken out.
  double left_out = -1;
  float min_p = 0;
  int32_t bans = 0;
  int32_t banned[kMostSampleBans] = {};
};

/// A token of each row, drawn or the likeliest, and its log-probability under the raw distribution:
/// no number where a logit is none or nothing is left to choose. What Sampler does for such rows
/// (sampler/sampler.h), but that tokens with less than 1e-13 of the likeliest one's probability are
/// never drawn, and that of equals top-p takes out those with the lowest ids. A row does not depend
/// on the others. Up to kMostSampledIds ids.
struct SampleArgs {
  const float* logits = nullptr;     ///< [rows, vocab_size]
  const SampleRow* table = nullptr;  ///< [rows]
  const uint32_t* seen = nullptr;    ///< [rows, seen_stride]: bits of the ids the penalty counts
  int64_t seen_stride = 0;
  int64_t* tokens = nullptr;  ///< [rows]
  float* logprobs = nullptr;  ///< [rows]
  int64_t rows = 0;
  int64_t vocab_size = 0;
};

/// Rows of a step become those of the next one: each goes on from the token picked for it, in the
/// slot kept for that, or becomes one of nobody's in the spare slot.
struct AdvanceArgs {
  const int64_t* tokens = nullptr;  ///< [rows]
  SampleRow* table = nullptr;       ///< [rows]: SampleArgs'; null where none is in use
  uint32_t* seen = nullptr;         ///< [rows, seen_stride]: likewise
  int64_t seen_stride = 0;
  const int32_t* upcoming = nullptr;  ///< [rows]: slots; -1: the row is nobody's from now on
  int64_t* ids = nullptr;             ///< [rows]
  int64_t* positions = nullptr;       ///< [rows]
  int64_t* lengths = nullptr;         ///< [rows]
  int64_t* slots = nullptr;           ///< [rows]
  int32_t* cached_lengths = nullptr;  ///< [rows]
  int32_t* slot_table = nullptr;      ///< [rows, table_stride]
  int64_t table_stride = 0;
  int64_t rows = 0;
  int32_t spare_slot = 0;
};

/// A weight matrix on the GPU: T [outputs, inputs] as it is, or packed as packed_index.h has it.
struct GpuMatrix {
  const void* weights = nullptr;
  const void* scales =
      nullptr;  ///< packed: float [outputs] (int8), bfloat16 [outputs, groups] (int4)
  const void* bias = nullptr;  ///< T [outputs] or null
  int64_t outputs = 0;
  int64_t inputs = 0;
  bool packed = false;
  PackedFormat format = PackedFormat::kBFloat16;  ///< where packed: kInt8 or kInt4
};

/// What becomes of a product of few rows.
enum class MatVecOutput {
  kStore,   ///< T out [rows, outputs]
  kAdd,     ///< T out [rows, outputs] += product
  kLogits,  ///< float out [rows, outputs], rounded to T first
  kGate,    ///< gate rows above up rows: T out [rows, outputs / 2] = function(gate) · up
  kRotate   ///< q, k, v rows: q rotated to T out [rows, heads, head_dim], k and v into the cache
};

/// x · Wᵀ + bias for up to kMatVecRowsOnGpu rows of x, where `norm_weight` of the normalized x
/// (AddNormArgs without delta, for kNormRowsOnGpu rows at most). Weights are read once; sums are
/// float32 and a row's result does not depend on the others. bfloat16 and float16, inputs divisible
/// by 8, GPUs from sm_80 on.
struct GpuMatVecArgs {
  GpuMatrix matrix;
  const void* x = nullptr;            ///< T [rows, inputs]
  const void* norm_weight = nullptr;  ///< T [inputs] or null
  float eps = 0;
  void* out = nullptr;
  int64_t rows = 0;
  MatVecOutput output = MatVecOutput::kStore;
  GateFunction function = GateFunction::kSilu;  ///< kGate
  RotateTarget target;                          ///< kRotate
  KernelType type = KernelType::kFloat32;
};

inline constexpr int64_t kMatVecRowsOnGpu = 32;
inline constexpr int64_t kNormRowsOnGpu = 4;

/// Between the CPU's packed rows (kernels/packed_matrix.h) and the GPU's.
struct RepackArgs {
  const void* rows = nullptr;  ///< `outputs` packed rows as pack_rows() makes them
  void* weights = nullptr;     ///< of the first of these outputs
  void* scales = nullptr;      ///< likewise
  PackedShape shape;           ///< outputs: so many rows now
};

/// Packed weights as T [outputs, inputs].
struct UnpackArgs {
  GpuMatrix matrix;
  void* out = nullptr;
  KernelType type = KernelType::kFloat32;
};

/// A picture as a viewer sees it.
struct UprightArgs {
  PictureLayout layout;
  uint8_t* rgb = nullptr;  ///< [upright height, upright width, 3]
};

/// Taps on the GPU.
struct TapsView {
  const Taps::Span* spans = nullptr;
  const int32_t* weights = nullptr;  ///< [spans, stride]
  int64_t stride = 0;
};

/// The pass of a resizing across (preprocess/resample.h), over a canvas on which a picture lies.
struct AcrossArgs {
  const uint8_t* rgb = nullptr;  ///< the picture: [height, width, 3]
  int64_t width = 0;
  int64_t height = 0;
  int64_t left = 0;  ///< of the picture on the canvas
  int64_t top = 0;
  uint8_t fill[3] = {0, 0, 0};  ///< the canvas beside it
  TapsView taps;                ///< of each column of the result
  int64_t first_row = 0;        ///< of the canvas
  uint8_t* out = nullptr;       ///< [rows, columns, 3]
  int64_t rows = 0;
  int64_t columns = 0;
};

/// The pass along, rescaled, normalised and put in its place in an input of the tower.
struct AlongArgs {
  const uint8_t* in = nullptr;  ///< [rows of the canvas from first_row on, columns, 3]
  int64_t first_row = 0;
  TapsView taps;  ///< of each row of the window, which is columns × rows
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t left = 0;  ///< of the window in the input; all else is black
  int64_t top = 0;
  const float* levels = nullptr;  ///< [3, 256]: what a byte becomes
  float* out = nullptr;           ///< the input: [3, out_height, out_width]
  int64_t out_width = 0;
  int64_t out_height = 0;
};

/// Whether the module holds code for the current GPU.
bool has_code();

bool paged_attention_cuda(const PagedAttentionArgs& args, void* stream);
bool split_attention_cuda(const SplitAttentionArgs& args, void* stream);
bool add_norm_cuda(const AddNormArgs& args, void* stream);
bool rotate_store_cuda(const RotateStoreArgs& args, void* stream);
bool gate_cuda(const GateArgs& args, void* stream);
bool embed_cuda(const EmbedArgs& args, void* stream);
bool pick_cuda(const PickArgs& args, void* stream);
bool sample_cuda(const SampleArgs& args, void* stream);
bool advance_cuda(const AdvanceArgs& args, void* stream);
bool matvec_cuda(const GpuMatVecArgs& args, void* stream);
bool repack_cuda(const RepackArgs& args, void* stream);
bool unpack_cuda(const UnpackArgs& args, void* stream);
bool upright_cuda(const UprightArgs& args, void* stream);
bool across_cuda(const AcrossArgs& args, void* stream);
bool along_cuda(const AlongArgs& args, void* stream);

/// As CudaModule has them.
bool begin_capture(void* stream);
void* end_capture(void* stream);
bool launch_graph(void* graph, void* stream);
void destroy_graph(void* graph);

}  // namespace vlm
