// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/thread_count.h"

#include <algorithm>
#include <functional>

namespace vlm {
namespace {

// Steps are taken together until they make so many seconds: several turns of a system that shares a
// core out in pieces of some milliseconds. A short step is held up for many of its own lengths, or
// not at all.
constexpr double kWindow = 0.02;
// The best of so many windows decides a trial.
constexpr int kDecides = 2;
// A count is clearly faster where steps take less than this share of the time.
constexpr double kClearly = 0.93;
// Steps are slow where they take so many times what is usual.
constexpr double kSlow = 1.25;
// Of what the newest windows differ by what is usual follows so much.
constexpr double kUsualRises = 0.01, kUsualFalls = 0.1;
// Of a measure, in seconds of steps since.
constexpr double kFresh = 5;
// Share of the time that trials may lose: while nothing is slow; while steps are, or may have been
// all along; and while fewer threads run, when nothing but a trial tells that the others could come
// back.
constexpr double kQuietShare = 0.004, kSlowShare = 0.1, kFewerShare = 0.03;
// What a trial costs at least, of what its steps would have taken.
constexpr double kTrialCost = 0.1;

}  // namespace

ThreadCount::ThreadCount(int least, int most, int first, Pace pace) : pace_(pace) {
  for (const int count : {most, most - 1}) rungs_.push_back(count);
  for (int half = most; half > 1; half /= 2) {
    rungs_.push_back(half * 3 / 4);
    rungs_.push_back(half / 2);
  }
  std::sort(rungs_.rbegin(), rungs_.rend());
  rungs_.erase(std::unique(rungs_.begin(), rungs_.end()), rungs_.end());
  std::erase_if(rungs_, [&](int count) { return count < std::clamp(least, 1, most); });
  const auto begin = std::lower_bound(rungs_.begin(), rungs_.end(), first, std::greater<>());
  at_ = std::min(static_cast<size_t>(begin - rungs_.begin()), rungs_.size() - 1);
}

void ThreadCount::Level::close_window(double now) {
  means[windows++ % kWindowsKept] = seconds / static_cast<double>(steps);
  seconds = 0;
  steps = 0;
  measured_at = now;
  const auto end = means.begin() + static_cast<std::ptrdiff_t>(std::min(windows, kWindowsKept));
  std::vector<double> sorted(means.begin(), end);
  std::sort(sorted.begin(), sorted.end());
  typical = sorted[sorted.size() / 2];
  if (windows == 1) usual = typical;
  usual += (typical - usual) * (typical < usual ? kUsualFalls : kUsualRises);
}

bool ThreadCount::Level::slow() const {
  return typical > kSlow * usual;
}

const ThreadCount::Level* ThreadCount::known(int64_t rows) const {
  const auto found = levels_.find(rows);
  if (found == levels_.end()) return nullptr;
  const Level& level = found->second;
  return level.windows > 0 && now_ - level.measured_at < kFresh ? &level : nullptr;
}

int ThreadCount::next(int64_t rows) const {
  return trial_ && known(rows) != nullptr ? rungs_[trial_->rung] : kept();
}

void ThreadCount::ran(int64_t rows, double seconds) {
  if (rungs_.size() == 1) return;
  if (const Level* level = known(rows); trial_ && level != nullptr) {
    judge(seconds, level->typical);
    return;
  }
  now_ += seconds;
  Level& level = levels_[rows];
  level.seconds += seconds;
  ++level.steps;
  if (level.seconds < kWindow || level.steps < pace_.steps) return;
  level.close_window(now_);
  if (!trial_) start_trial_if_due(level);
}

void ThreadCount::judge(double seconds, double expected) {
  trial_->seconds += seconds;
  trial_->expected += expected;
  ++trial_->steps;
  if (trial_->seconds < kWindow || trial_->steps < pace_.steps) return;
  const bool faster = trial_->seconds < kClearly * trial_->expected;
  trial_->lost += std::max(trial_->seconds - trial_->expected, kTrialCost * trial_->expected);
  if (++(faster ? trial_->faster : trial_->slower) == kDecides) {
    end_trial(faster);
    return;
  }
  trial_->seconds = trial_->expected = 0;
  trial_->steps = 0;
}

void ThreadCount::end_trial(bool keep) {
  onward_.reset();
  lost_ = keep ? 0 : trial_->lost;
  if (keep) {
    move_to(trial_->rung);
  } else if (++losses_ >= others().size()) {
    // No other count helps: the machine is slower than it was.
    for (auto& [rows, level] : levels_) level.usual = level.typical;
    losses_ = 0;
  }
  trial_.reset();
  trial_ended_ = now_;
}

void ThreadCount::move_to(size_t rung) {
  const bool fewer = rung > at_;
  if (fewer && rung + 1 < rungs_.size()) onward_ = rung + 1;
  if (!fewer && rung > 0) onward_ = rung - 1;
  at_ = rung;
  losses_ = 0;
  levels_.clear();
}

std::vector<size_t> ThreadCount::others() const {
  std::vector<size_t> found;
  for (size_t i = 0; i < rungs_.size(); ++i) {
    // What is far away may cost much to try; all is reached in several moves.
    const bool near = rungs_[i] * 2 >= kept() && rungs_[i] <= kept() * 2;
    if (i != at_ && (near || i == 0 || i == at_ + 1)) found.push_back(i);
  }
  std::stable_sort(found.begin(), found.end(), [&](size_t a, size_t b) {
    const auto distance = [&](size_t i) { return i > at_ ? i - at_ : at_ - i; };
    return distance(a) < distance(b);
  });
  return found;
}

void ThreadCount::start_trial_if_due(const Level& level) {
  const std::vector<size_t> all = others();
  const bool slow = level.slow() || turn_ < all.size();
  const double share = at_ > 0 ? kFewerShare : slow ? kSlowShare : kQuietShare;
  const bool due = (now_ - trial_ended_) * share >= lost_;
  if (level.windows < pace_.windows || !due) return;
  trial_ = Trial();
  trial_->rung = onward_ ? *onward_ : all[turn_++ % all.size()];
}

int StepThreads::next(Kind kind, int64_t size) const {
  if (kind == Kind::kDecode) return decodes_.next(size);
  if (have_all()) return most();
  const auto other = others_.find(kind);
  return other == others_.end() ? decodes_.kept() : other->second.next(size);
}

void StepThreads::ran(Kind kind, int64_t size, double seconds) {
  if (kind == Kind::kDecode) {
    decodes_.ran(size, seconds);
    return;
  }
  if (have_all()) return;
  constexpr ThreadCount::Pace kOfFew = {1, 1};
  const auto [other, fresh] = others_.try_emplace(kind, least_, most(), decodes_.kept(), kOfFew);
  other->second.ran(size, seconds);
}

}  // namespace vlm
