// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/processors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>

namespace vlm {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// Keeps scores not below the k-th best; ties with it stay, as in the reference.
at::Tensor keep_top_k(const at::Tensor& scores, const at::Tensor& warps) {
  const at::Tensor sorted = std::get<0>(at::sort(scores, 1, /*descending=*/true));
  const at::Tensor rank =
      WarpTable::column(warps, WarpTable::kTopK, at::kLong).clamp_max(scores.size(1)) - 1;
  return scores.masked_fill(scores < sorted.gather(1, rank), kMinusInfinity);
}

// Takes out the least likely tokens whose probabilities sum up to at most 1 - p.
at::Tensor keep_top_p(const at::Tensor& scores, const at::Tensor& warps) {
  const int64_t vocab = scores.size(1);
  const auto [sorted, order] = at::sort(scores, 1, /*descending=*/false);
  const at::Tensor cumulative = at::softmax(sorted, -1).cumsum(-1);
  const at::Tensor limit = WarpTable::column(warps, WarpTable::kTopP, at::kFloat);
  const at::Tensor first_kept = vocab - WarpTable::column(warps, WarpTable::kMinKeep, at::kLong);
  const at::Tensor ranks = at::arange(vocab, first_kept.options()).unsqueeze(0);
  const at::Tensor out = (cumulative <= limit).logical_and(ranks < first_kept);
  at::Tensor mask = at::empty_like(out);
  mask.scatter_(1, order, out);
  return scores.masked_fill(mask, kMinusInfinity);
}

// Takes out tokens less likely than min_p times the likeliest, down to min_keep.
at::Tensor keep_min_p(const at::Tensor& scores, const at::Tensor& warps) {
  const at::Tensor probs = at::softmax(scores, -1);
  const at::Tensor floor =
      probs.amax(-1, true) * WarpTable::column(warps, WarpTable::kMinP, at::kFloat);
  const at::Tensor sorted = std::get<0>(at::sort(probs, 1, /*descending=*/true));
  const at::Tensor rank = WarpTable::column(warps, WarpTable::kMinKeep, at::kLong) - 1;
  const at::Tensor kept = sorted.gather(1, rank);
  return scores.masked_fill((probs < floor).logical_and(probs < kept), kMinusInfinity);
}

}  // namespace

at::Tensor id_tensor(const std::vector<int64_t>& ids, const at::Tensor& like) {
  return at::tensor(ids, at::kLong).to(like.device());
}

bool has_processors(const Choice& choice) {
  return choice.repetition_penalty != 1 ||
         any_of(choice.banned.begin(), choice.banned.end(),
                [](const std::vector<int64_t>& ids) { return !ids.empty(); });
}

void apply_processors(const at::Tensor& scores, const Choice& choice, int64_t row) {
  const auto index = static_cast<size_t>(row);
  if (choice.repetition_penalty != 1 && index < choice.seen.size() && !choice.seen[index].empty()) {
    const at::Tensor ids = id_tensor(choice.seen[index], scores);
    const at::Tensor seen = scores.index_select(0, ids);
    scores.index_copy_(
        0, ids,
        at::where(seen < 0, seen * choice.repetition_penalty, seen / choice.repetition_penalty));
  }
  if (index < choice.banned.size() && !choice.banned[index].empty()) {
    scores.index_fill_(0, id_tensor(choice.banned[index], scores), kMinusInfinity);
  }
}

at::Tensor apply_warpers(const at::Tensor& scores, const at::Tensor& warps, WarpUse use) {
  at::Tensor warped = scores / WarpTable::column(warps, WarpTable::kTemperature, at::kFloat);
  if (use.top_k) warped = keep_top_k(warped, warps);
  if (use.top_p) warped = keep_top_p(warped, warps);
  if (use.min_p) warped = keep_min_p(warped, warps);
  return warped;
}

}  // namespace vlm
