// SPDX-License-Identifier: LGPL-2.1-or-later

// The kernels of gpu_kernel_bench beside products, attention and choices.

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/gpu_bench.h"
#include "cuda/packed_index.h"
#include "preprocess/resample.h"

namespace bench {
namespace {

using namespace vlm;

constexpr int kCalls = 40;

void done(bool enqueued) {
  if (!enqueued) std::abort();
}

// What a layer's small kernels move lies in the GPU's cache in a step, and so it does here.
void measure_norm_and_gate(const Gpu& gpu, int64_t rows, int64_t hidden, int64_t inner,
                           double read) {
  const at::Tensor x = at::randn({rows, hidden}, gpu.half), delta = at::randn_like(x);
  const at::Tensor weight = at::randn({hidden}, gpu.half), out = at::empty_like(x);
  AddNormArgs norm;
  norm.x = norm.sum = x.mutable_data_ptr();
  norm.delta = delta.const_data_ptr();
  norm.weight = weight.const_data_ptr();
  norm.out = out.mutable_data_ptr();
  norm.rows = rows;
  norm.size = hidden;
  norm.eps = 1e-5F;
  norm.type = KernelType::kBFloat16;
  const double normed =
      seconds(gpu, kCalls, [&](int) { done(gpu.module.add_norm(norm, gpu.queue())); });
  print("add_norm", rows, static_cast<double>(4 * x.nbytes()), normed, read);

  const at::Tensor both = at::randn({rows, 2 * inner}, gpu.half);
  const at::Tensor gated = at::empty({rows, inner}, gpu.half);
  GateArgs gate;
  gate.gate = both.const_data_ptr();
  gate.up = static_cast<const char*>(both.const_data_ptr()) + inner * 2;
  gate.out = gated.mutable_data_ptr();
  gate.gate_stride = gate.up_stride = 2 * inner;
  gate.rows = rows;
  gate.size = inner;
  gate.type = KernelType::kBFloat16;
  const double taken = seconds(gpu, kCalls, [&](int) { done(gpu.module.gate(gate, gpu.queue())); });
  print("gate", rows, static_cast<double>(both.nbytes() + gated.nbytes()), taken, read);
}

void measure_rotate(const Gpu& gpu, int64_t rows, int64_t heads, int64_t kv_heads, double read) {
  constexpr int64_t kDim = 128;
  const int64_t width = (heads + 2 * kv_heads) * kDim;
  const at::Tensor qkv = at::randn({rows, width}, gpu.half);
  const at::Tensor angles = at::randn({rows, kDim}, gpu.half);
  const at::Tensor cache = at::empty({2, rows, kv_heads, kDim}, gpu.half);
  const at::Tensor slots = at::arange(rows, gpu.half.dtype(at::kLong));
  auto* q = static_cast<char*>(qkv.mutable_data_ptr());
  RotateStoreArgs args;
  args.q = q;
  args.k = q + heads * kDim * 2;
  args.v = q + (heads + kv_heads) * kDim * 2;
  args.q_stride = args.k_stride = args.v_stride = width;
  args.rows = rows;
  args.type = KernelType::kBFloat16;
  RotateTarget& target = args.target;
  target.cos = target.sin = angles.const_data_ptr();
  target.slots = slots.const_data_ptr<int64_t>();
  target.k_cache = cache[0].mutable_data_ptr();
  target.v_cache = cache[1].mutable_data_ptr();
  target.heads = heads;
  target.kv_heads = kv_heads;
  target.head_dim = kDim;
  const double time =
      seconds(gpu, kCalls, [&](int) { done(gpu.module.rotate_store(args, gpu.queue())); });
  const int64_t moved = (2 * heads + 4 * kv_heads) * kDim * 2 * rows;
  print("rotate_store", rows, static_cast<double>(moved), time, read);
}

// Embeddings, and what a step leaves for the next one.
void measure_ends(const Gpu& gpu, int64_t rows, int64_t hidden, double read) {
  constexpr int64_t kVocab = 32064, kPast = 700;
  const at::TensorOptions longs = gpu.half.dtype(at::kLong), ints = gpu.half.dtype(at::kInt);
  const at::Tensor table = at::randn({kVocab, hidden}, gpu.half);
  const at::Tensor ids = at::randint(kVocab, {rows}, longs);
  const at::Tensor out = at::empty({rows, hidden}, gpu.half);
  EmbedArgs embed;
  embed.table = table.const_data_ptr();
  embed.ids = ids.const_data_ptr<int64_t>();
  embed.out = out.mutable_data_ptr();
  embed.rows = rows;
  embed.size = hidden;
  embed.type = KernelType::kBFloat16;
  const double taken =
      seconds(gpu, kCalls, [&](int) { done(gpu.module.embed(embed, gpu.queue())); });
  print("embed", rows, static_cast<double>(2 * out.nbytes()), taken, read);

  const at::Tensor numbers = at::full({4, rows}, kPast, longs);
  const at::Tensor lengths = at::full({rows}, kPast, ints), upcoming = at::arange(rows, ints);
  const at::Tensor slots = at::zeros({rows, kPast + 4 * kCalls}, ints);
  AdvanceArgs advance;
  advance.tokens = ids.const_data_ptr<int64_t>();
  advance.upcoming = upcoming.const_data_ptr<int32_t>();
  advance.ids = numbers[0].mutable_data_ptr<int64_t>();
  advance.positions = numbers[1].mutable_data_ptr<int64_t>();
  advance.lengths = numbers[2].mutable_data_ptr<int64_t>();
  advance.slots = numbers[3].mutable_data_ptr<int64_t>();
  advance.cached_lengths = lengths.mutable_data_ptr<int32_t>();
  advance.slot_table = slots.mutable_data_ptr<int32_t>();
  advance.table_stride = slots.size(1);
  advance.rows = rows;
  // Each call is a token more: twenty of them, run six times in all, fit in the table.
  const double time =
      seconds(gpu, 20, [&](int) { done(gpu.module.advance(advance, gpu.queue())); });
  std::printf("%-28s %3d rows %8.1f us\n", "advance", static_cast<int>(rows), time * 1e6);
}

// Taps and the GPU's copy of them.
struct TapsOnGpu {
  TapsOnGpu(const Gpu& gpu, int64_t in, int64_t out, int64_t begin, int64_t count) {
    const Taps taps = resample_taps(in, out, begin, count, Resample::kBicubic);
    static_assert(sizeof(Taps::Span) == 2 * sizeof(int64_t));
    spans = at::from_blob(const_cast<Taps::Span*>(taps.spans.data()), {count, 2}, at::kLong)
                .to(gpu.device);
    weights =
        at::from_blob(const_cast<int32_t*>(taps.weights.data()), {count, taps.stride}, at::kInt)
            .to(gpu.device);
  }
  TapsView view() const {
    return {static_cast<const Taps::Span*>(spans.const_data_ptr()),
            weights.const_data_ptr<int32_t>(), weights.size(1)};
  }
  at::Tensor spans, weights;
};

}  // namespace

void measure_elementwise(const Gpu& gpu, int64_t hidden, int64_t inner, int64_t heads,
                         int64_t kv_heads, double read) {
  for (const int64_t rows : {1, 16, 64, 600}) {
    measure_norm_and_gate(gpu, rows, hidden, inner, read);
    measure_rotate(gpu, rows, heads, kv_heads, read);
    measure_ends(gpu, rows, hidden, read);
  }
}

void measure_packing(const Gpu& gpu, int64_t outputs, int64_t inputs, double read) {
  const at::TensorOptions byte_options = gpu.half.dtype(at::kByte);
  const at::Tensor plain = at::empty({outputs, inputs}, gpu.half);
  for (const PackedFormat format : {PackedFormat::kInt8, PackedFormat::kInt4}) {
    const PackedShape shape = {format, outputs, inputs};
    const std::string kind = format == PackedFormat::kInt8 ? " int8" : " int4";
    const at::Tensor rows = at::full({shape.bytes()}, 0x3C, byte_options);
    const at::Tensor weights = at::empty({outputs, gpu_row_bytes(format, inputs)}, byte_options);
    const at::Tensor scales = at::empty({outputs, gpu_scale_bytes(format, inputs)}, byte_options);
    const RepackArgs repack = {rows.const_data_ptr(), weights.mutable_data_ptr(),
                               scales.mutable_data_ptr(), shape};
    const auto packed_bytes = static_cast<double>(weights.nbytes() + scales.nbytes());
    print(("repack" + kind).c_str(), outputs, static_cast<double>(rows.nbytes()) + packed_bytes,
          seconds(gpu, 10, [&](int) { done(gpu.module.repack(repack, gpu.queue())); }), read);
    UnpackArgs unpack;
    unpack.matrix.weights = weights.const_data_ptr();
    unpack.matrix.scales = scales.const_data_ptr();
    unpack.matrix.outputs = outputs;
    unpack.matrix.inputs = inputs;
    unpack.matrix.packed = true;
    unpack.matrix.format = format;
    unpack.out = plain.mutable_data_ptr();
    unpack.type = KernelType::kBFloat16;
    print(("unpack" + kind).c_str(), outputs, packed_bytes + static_cast<double>(plain.nbytes()),
          seconds(gpu, 10, [&](int) { done(gpu.module.unpack(unpack, gpu.queue())); }), read);
  }
}

void measure_pictures(const Gpu& gpu, double read) {
  // 1080p to a tower's 336 pixels: the short side resized, the long one cropped.
  constexpr int64_t kWidth = 1920, kHeight = 1080, kSide = 336;
  constexpr int64_t kResized = kWidth * kSide / kHeight, kLeft = (kResized - kSide) / 2;
  const at::TensorOptions byte_options = gpu.half.dtype(at::kByte);
  const at::Tensor frame = at::randint(256, {kHeight * 3 / 2, kWidth}, byte_options);
  const at::Tensor rgb = at::empty({kHeight, kWidth, 3}, byte_options);
  UprightArgs upright;
  PictureLayout& layout = upright.layout;
  layout.format = PictureLayout::Format::kNv12;
  layout.width = kWidth;
  layout.height = kHeight;
  layout.planes[0] = frame.const_data_ptr<uint8_t>();
  layout.planes[1] = layout.planes[0] + kHeight * kWidth;
  layout.strides[0] = layout.strides[1] = kWidth;
  layout.matrix = {{16, 128, 128}, 1.164F, 1.793F, 2.112F, 0.213F, 0.533F};
  upright.rgb = rgb.mutable_data_ptr<uint8_t>();
  print("upright NV12 1080p", 1, static_cast<double>(frame.nbytes() + rgb.nbytes()),
        seconds(gpu, 10, [&](int) { done(gpu.module.upright(upright, gpu.queue())); }), read);

  const TapsOnGpu columns(gpu, kWidth, kResized, kLeft, kSide);
  const at::Tensor narrow = at::empty({kHeight, kSide, 3}, byte_options);
  AcrossArgs across;
  across.rgb = upright.rgb;
  across.width = kWidth;
  across.height = kHeight;
  across.taps = columns.view();
  across.out = narrow.mutable_data_ptr<uint8_t>();
  across.rows = kHeight;
  across.columns = kSide;
  print("across 1080p", 1, static_cast<double>(rgb.nbytes() + narrow.nbytes()),
        seconds(gpu, 10, [&](int) { done(gpu.module.across(across, gpu.queue())); }), read);

  const TapsOnGpu lines(gpu, kHeight, kSide, 0, kSide);
  const at::Tensor levels = at::randn({3, 256}, gpu.half.dtype(at::kFloat));
  const at::Tensor input = at::empty({3, kSide, kSide}, gpu.half.dtype(at::kFloat));
  AlongArgs along;
  along.in = across.out;
  along.taps = lines.view();
  along.rows = along.columns = along.out_width = along.out_height = kSide;
  along.levels = levels.const_data_ptr<float>();
  along.out = input.mutable_data_ptr<float>();
  print("along 1080p", 1, static_cast<double>(narrow.nbytes() + input.nbytes()),
        seconds(gpu, 10, [&](int) { done(gpu.module.along(along, gpu.queue())); }), read);
}

}  // namespace bench
