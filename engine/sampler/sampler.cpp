// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sampler/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "kernels/random.h"
#include "sampler/processors.h"

namespace vlm {
namespace {

// A token for each of some rows, and whether it is one: no finite number where it is not.
struct Picked {
  at::Tensor tokens;    // int64 [rows]
  at::Tensor possible;  // float [rows]
};

// Inverse of the cumulative distribution at each row's uniform number. scores [rows, vocab_size].
Picked draw(const at::Tensor& scores, const at::Tensor& warps) {
  const at::Tensor cumulative = at::softmax(scores.to(at::kDouble), -1).cumsum(-1);
  const at::Tensor total = cumulative.slice(1, -1).contiguous();
  const at::Tensor at_value = WarpTable::column(warps, WarpTable::kUniform, at::kDouble) * total;
  // Rounding may put the point on the total itself, where only impossible tokens are left; where
  // there is no total, any token will do, as long as it is one.
  const at::Tensor tokens = at::searchsorted(cumulative, at_value, false, /*right=*/true)
                                .minimum(at::searchsorted(cumulative, total, false))
                                .clamp_max(scores.size(1) - 1);
  return {tokens.squeeze(1), total.reciprocal().squeeze(1).to(at::kFloat)};
}

// The part of a step's choices that want one token each.
struct SingleRows {
  std::vector<size_t> choices;
  std::vector<int64_t> rows;
};

// Tokens of all single rows: processed in place, warped and drawn where sampling, else the best.
Picked pick(const at::Tensor& scores, const std::vector<Choice>& choices, const SingleRows& single,
            const WarpTable& table) {
  const at::Tensor best = at::argmax(scores, -1);
  Picked picked = {best, scores.gather(1, best.unsqueeze(1)).squeeze(1)};
  std::vector<int64_t> sampled, sampled_rows;
  WarpUse use;
  for (size_t i = 0; i < single.choices.size(); ++i) {
    const Choice& choice = choices[single.choices[i]];
    if (!choice.sample) continue;
    sampled.push_back(static_cast<int64_t>(i));
    sampled_rows.push_back(choice.first_row);
    use.add(choice);
  }
  if (sampled.empty()) return picked;
  const at::Tensor rows = id_tensor(sampled, scores);
  const at::Tensor warps = table.values().index_select(0, id_tensor(sampled_rows, scores));
  const at::Tensor warped = apply_warpers(at::index_select(scores, 0, rows), warps, use);
  const Picked drawn = draw(warped, warps);
  picked.tokens.index_copy_(0, rows, drawn.tokens);
  picked.possible.index_copy_(0, rows, drawn.possible);
  return picked;
}

void choose_single(const at::Tensor& logits, const std::vector<Choice>& choices,
                   const SingleRows& single, const WarpTable& table, std::vector<Chosen>& results) {
  if (single.rows.empty()) return;
  const bool all = static_cast<int64_t>(single.rows.size()) == logits.size(0);
  const at::Tensor raw = all ? logits : at::index_select(logits, 0, id_tensor(single.rows, logits));
  at::Tensor scores = raw;
  for (size_t i = 0; i < single.choices.size(); ++i) {
    const Choice& choice = choices[single.choices[i]];
    if (!has_processors(choice)) continue;
    if (scores.is_same(raw)) scores = raw.clone();
    apply_processors(scores.select(0, static_cast<int64_t>(i)), choice, 0);
  }
  const Picked picked = pick(scores, choices, single, table);
  const at::Tensor tokens = picked.tokens.unsqueeze(1);
  const at::Tensor logprobs =
      (raw.gather(1, tokens) - at::logsumexp(raw, at::IntArrayRef{1}, true)).cpu();
  const at::Tensor possible = picked.possible.cpu();
  const at::Tensor ids = tokens.cpu();
  for (size_t i = 0; i < single.choices.size(); ++i) {
    const float logprob = logprobs.const_data_ptr<float>()[i];
    if (!std::isfinite(logprob) || !std::isfinite(possible.const_data_ptr<float>()[i])) continue;
    results[single.choices[i]].candidates = {
        {0, ids.const_data_ptr<int64_t>()[i], logprob, logprob}};
  }
}

// Gumbel noise: the order of the noisy scores is the order of draws without replacement.
at::Tensor gumbel(const Choice& choice, const at::Tensor& like) {
  std::vector<double> noise(static_cast<size_t>(like.numel()));
  for (size_t i = 0; i < noise.size(); ++i) {
    const double u = uniform_draw(choice.seed, choice.sequence, static_cast<uint32_t>(choice.token),
                                  static_cast<uint32_t>(i));
    noise[i] = -std::log(-std::log(u));
  }
  return at::tensor(noise, at::kDouble).to(like.device());
}

Chosen choose_beams(const at::Tensor& logits, const Choice& choice, const WarpTable& table) {
  const int64_t vocab = logits.size(1);
  const at::Tensor raw = at::log_softmax(logits.narrow(0, choice.first_row, choice.rows), -1);
  at::Tensor scores = raw;
  if (has_processors(choice)) {
    scores = raw.clone();
    for (int64_t row = 0; row < choice.rows; ++row) {
      apply_processors(scores.select(0, row), choice, row);
    }
  }
  if (choice.sample) {
    WarpUse use;
    use.add(choice);
    scores = apply_warpers(scores, table.values().narrow(0, choice.first_row, choice.rows), use);
  }
  const at::Tensor running = at::tensor(choice.running_scores, at::kFloat).to(logits.device());
  const at::Tensor flat = (scores + running.unsqueeze(1)).flatten();
  const at::Tensor keys = choice.sample ? flat.to(at::kDouble) + gumbel(choice, flat) : flat;
  const int64_t count = std::min(choice.candidates, flat.numel());
  const auto [best_keys, best] = at::topk(keys, count, 0, /*largest=*/true, /*sorted=*/true);
  const at::Tensor order_keys = best_keys.to(at::kDouble).cpu();
  const at::Tensor indices = best.cpu();
  const at::Tensor totals = flat.index_select(0, best).cpu();
  const at::Tensor logprobs = raw.flatten().index_select(0, best).cpu();

  // topk leaves the order of equal scores open; the lower index comes first here.
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const auto* key = order_keys.const_data_ptr<double>();
  const auto* index = indices.const_data_ptr<int64_t>();
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return key[a] != key[b] ? key[a] > key[b] : index[a] < index[b];
  });
  Chosen chosen;
  for (int64_t i : order) {
    const float score = totals.const_data_ptr<float>()[i];
    if (!std::isfinite(score)) continue;
    chosen.candidates.push_back(
        {index[i] / vocab, index[i] % vocab, score, logprobs.const_data_ptr<float>()[i]});
  }
  return chosen;
}

// The likeliest ids of each of the choice's rows.
std::vector<std::shared_ptr<const Alternatives>> likeliest(const at::Tensor& logits,
                                                           const Choice& choice) {
  const at::Tensor raw = at::log_softmax(logits.narrow(0, choice.first_row, choice.rows), -1);
  const int64_t count = std::min(choice.alternatives, raw.size(1));
  const auto [best, indices] = at::topk(raw, count, 1, /*largest=*/true, /*sorted=*/true);
  const at::Tensor logprobs = best.cpu().contiguous();
  const at::Tensor ids = indices.cpu().contiguous();
  std::vector<std::shared_ptr<const Alternatives>> rows;
  for (int64_t row = 0; row < choice.rows; ++row) {
    auto alternatives = std::make_shared<Alternatives>();
    for (int64_t i = row * count; i < (row + 1) * count; ++i) {
      alternatives->push_back(
          {ids.const_data_ptr<int64_t>()[i], logprobs.const_data_ptr<float>()[i]});
    }
    // As for beams, the lower id comes first among equals.
    std::stable_sort(alternatives->begin(), alternatives->end(), [](const auto& a, const auto& b) {
      return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
    });
    rows.push_back(std::move(alternatives));
  }
  return rows;
}

}  // namespace

bool takes_the_likeliest(const Choice& choice) {
  return !choice.beams && !choice.sample && choice.alternatives == 0 &&
         choice.repetition_penalty == 1;
}

std::vector<Chosen> Sampler::choose(const at::Tensor& logits, const std::vector<Choice>& choices) {
  warps_.fill(choices);
  std::vector<Chosen> results(choices.size());
  SingleRows single;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].beams) {
      results[i] = choose_beams(logits, choices[i], warps_);
    } else {
      single.choices.push_back(i);
      single.rows.push_back(choices[i].first_row);
    }
  }
  choose_single(logits, choices, single, warps_, results);
  for (size_t i = 0; i < choices.size(); ++i) {
    if (choices[i].alternatives > 0 && !results[i].candidates.empty()) {
      results[i].alternatives = likeliest(logits, choices[i]);
    }
  }
  return results;
}

}  // namespace vlm
