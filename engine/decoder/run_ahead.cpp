// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/run_ahead.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "scheduler/look_ahead.h"

namespace vlm {

RunAhead::RunAhead(DeviceStep& step, StepBuffers& buffers, Sampler& sampler)
    : step_(step), buffers_(buffers), sampler_(sampler) {}

void RunAhead::start(const std::vector<DecodePart>& decodes, const std::vector<Choice>& choices,
                     bool alone) {
  // A failure below must leave no run behind: what its rows stand for may be overwritten by then.
  const std::optional<Ahead> ahead = std::exchange(ahead_, std::nullopt);
  if (!take(ahead, decodes)) start_afresh(decodes, choices);
  if (alone && picked_) look_ahead(decodes, choices);
}

bool RunAhead::take(const std::optional<Ahead>& ahead, const std::vector<DecodePart>& decodes) {
  if (!ahead) return false;
  std::optional<std::vector<int64_t>> rows = rows_ahead(ahead->slots, decodes);
  if (!rows) return false;
  ticket_ = ahead->ticket;
  rows_ = std::move(*rows);
  return true;
}

void RunAhead::start_afresh(const std::vector<DecodePart>& decodes,
                            const std::vector<Choice>& choices) {
  const auto count = static_cast<int64_t>(decodes.size());
  buffers_.fill(decodes, step_.bucket(count), step_.spare_slot());
  if (std::all_of(choices.begin(), choices.end(), takes_the_likeliest)) {
    std::vector<const std::vector<int64_t>*> banned(decodes.size());
    for (const Choice& choice : choices) {
      if (!choice.banned.empty()) banned[choice.first_row] = &choice.banned.front();
    }
    picked_ = step_.pick_likeliest(banned);
  } else {
    picked_ = step_.pick(choices);
  }
  ticket_ = step_.run();
  rows_.resize(decodes.size());
  std::iota(rows_.begin(), rows_.end(), 0);
}

void RunAhead::look_ahead(const std::vector<DecodePart>& decodes,
                          const std::vector<Choice>& choices) {
  std::optional<std::vector<int32_t>> slots = slots_ahead(decodes, choices, rows_, buffers_.rows());
  if (!slots) return;
  // Where those that end make room for fewer rows, the next step starts afresh.
  const auto nobodys = std::count(slots->begin(), slots->end(), -1);
  if (step_.bucket(buffers_.rows() - nobodys) < buffers_.rows()) return;
  const DeviceStep::Ticket ticket = step_.run_on(*slots);
  ahead_ = Ahead{ticket, std::move(*slots)};
}

std::vector<Chosen> RunAhead::answer(const std::vector<Choice>& choices) {
  if (!picked_) {
    return sampler_.choose(step_.logits().narrow(0, 0, static_cast<int64_t>(rows_.size())),
                           choices);
  }
  const DeviceStep::Picks picks = step_.picks(ticket_);
  std::vector<Chosen> chosen(choices.size());
  for (size_t i = 0; i < choices.size(); ++i) {
    const int64_t row = rows_[static_cast<size_t>(choices[i].first_row)];
    const float logprob = picks.logprobs[row];
    if (!std::isfinite(logprob)) continue;
    chosen[i].candidates = {{0, picks.tokens[row], logprob, logprob}};
  }
  return chosen;
}

}  // namespace vlm
