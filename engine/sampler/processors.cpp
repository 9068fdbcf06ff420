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

// One number of every row as a column [rows, 1] beside the scores.
template <typename Get>
at::Tensor column(const std::vector<Warp>& warps, const at::Tensor& like, at::ScalarType type,
                  Get get) {
  std::vector<double> values;
  for (const Warp& warp : warps) values.push_back(static_cast<double>(get(warp)));
  return at::tensor(values, at::kDouble).to(type).to(like.device()).unsqueeze(1);
}

template <typename Test>
bool any(const std::vector<Warp>& warps, Test test) {
  return std::any_of(warps.begin(), warps.end(), test);
}

// Keeps scores not below the k-th best; ties with it stay, as in the reference.
at::Tensor keep_top_k(const at::Tensor& scores, const std::vector<Warp>& warps) {
  const int64_t vocab = scores.size(1);
  const at::Tensor sorted = std::get<0>(at::sort(scores, 1, /*descending=*/true));
  const at::Tensor rank = column(warps, scores, at::kLong, [vocab](const Warp& warp) {
    const int64_t k = warp.top_k > 0 ? std::max(warp.top_k, warp.min_keep) : vocab;
    return std::min(k, vocab) - 1;
  });
  return scores.masked_fill(scores < sorted.gather(1, rank), kMinusInfinity);
}

// Takes out the least likely tokens whose probabilities sum up to at most 1 - p.
at::Tensor keep_top_p(const at::Tensor& scores, const std::vector<Warp>& warps) {
  const int64_t vocab = scores.size(1);
  const auto [sorted, order] = at::sort(scores, 1, /*descending=*/false);
  const at::Tensor cumulative = at::softmax(sorted, -1).cumsum(-1);
  const at::Tensor limit = column(warps, scores, at::kFloat, [](const Warp& warp) {
    return warp.top_p < 1 ? 1 - warp.top_p : kMinusInfinity;
  });
  const at::Tensor first_kept =
      column(warps, scores, at::kLong, [vocab](const Warp& w) { return vocab - w.min_keep; });
  const at::Tensor ranks = at::arange(vocab, first_kept.options()).unsqueeze(0);
  const at::Tensor out = (cumulative <= limit).logical_and(ranks < first_kept);
  at::Tensor mask = at::empty_like(out);
  mask.scatter_(1, order, out);
  return scores.masked_fill(mask, kMinusInfinity);
}

// Takes out tokens less likely than min_p times the likeliest, down to min_keep.
at::Tensor keep_min_p(const at::Tensor& scores, const std::vector<Warp>& warps) {
  const at::Tensor probs = at::softmax(scores, -1);
  const at::Tensor floor = probs.amax(-1, true) *
                           column(warps, scores, at::kFloat, [](const Warp& w) { return w.min_p; });
  const at::Tensor sorted = std::get<0>(at::sort(probs, 1, /*descending=*/true));
  const at::Tensor rank =
      column(warps, scores, at::kLong, [](const Warp& w) { return w.min_keep - 1; });
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

at::Tensor apply_warpers(const at::Tensor& scores, const std::vector<Warp>& warps) {
  at::Tensor warped =
      scores / column(warps, scores, at::kFloat, [](const Warp& w) { return w.temperature; });
  if (any(warps, [](const Warp& w) { return w.top_k > 0; })) warped = keep_top_k(warped, warps);
  if (any(warps, [](const Warp& w) { return w.top_p < 1; })) warped = keep_top_p(warped, warps);
  if (any(warps, [](const Warp& w) { return w.min_p > 0; })) warped = keep_min_p(warped, warps);
  return warped;
}

}  // namespace vlm
