// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#if !defined(__CUDACC__)
#include <atomic>
#endif
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/kernels.h"
#include "kernels/host_device.h"
#include "kernels/random.h"
#include "kernels/rounded.h"

namespace vlm {

// How a block of threads comes to a token of one row of logits, without a sort. What the threads do
// between two barriers is a phase; a `Block` runs it, on the GPU or on the CPU:
//   threads()    how many there are: a multiple of 32 up to kSampleThreads
//   phase(work)  work(thread) in every thread, then a barrier
//   scan(value)  SampleShared::prefix of what value(thread) gives, then a barrier
// Probabilities are summed as whole numbers, so that neither order nor number of threads matters.

inline constexpr int kSampleThreads = 1024;
inline constexpr int kSampleBins = 1024;
// Threads that read neighbouring logits where a row is cut into parts.
inline constexpr int kSampleGroup = 8;

/// What the threads share. Nothing outlives the row.
struct SampleShared {
  /// Where, from the likeliest score on, the sum of weights passes a point.
  struct Crossing {
    int bin;               ///< that holds it
    uint32_t least, most;  ///< order of its scores
    uint64_t weight;       ///< of all of them
    uint64_t point;        ///< counted from what comes before them
  };
  /// The same in the order of ids.
  struct Part {
    int group;
    uint64_t point;
  };

  uint64_t prefix[kSampleThreads + 1];  ///< sum of what the threads before gave; last, of all
  uint32_t low[kSampleBins], high[kSampleBins];  ///< weight of each bin, its halves
  uint32_t least[kSampleBins], most[kSampleBins];
  uint32_t bests[kSampleThreads];  ///< order of each thread's best score
  uint32_t tops[kSampleThreads];   ///< of its highest logit
  SampleRow options;
  Crossing crossing;
  Part part;
};

/// The order of numbers as an order of words; what is no number comes last.
VLM_HOST_DEVICE inline uint32_t order_of(float value) {
  if (value != value) return 0xFFFFFFFFu;
  const float same = value + 0.0f;  // of both zeros
  uint32_t bits = 0;
  memcpy(&bits, &same, sizeof bits);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

VLM_HOST_DEVICE inline float value_of(uint32_t order) {
  const uint32_t bits = order >> 31 != 0 ? order & 0x7FFFFFFFu : ~order;
  float value = 0;
  memcpy(&value, &bits, sizeof value);
  return value;
}

VLM_HOST_DEVICE inline bool is_number(float value) {
  return value - value == 0;
}

VLM_HOST_DEVICE inline void mark_seen(uint32_t* seen, int64_t id) {
  seen[id / 32] |= 1u << (id % 32);
}

/// The row's next token will come after this one.
VLM_HOST_DEVICE inline void go_on_from(SampleRow& row, uint32_t* seen, int64_t token) {
  ++row.token;
  mark_seen(seen, token);
}

VLM_DEVICE inline uint32_t add_shared(uint32_t* to, uint32_t value) {
#if defined(__CUDACC__)
  return atomicAdd(to, value);
#else
  return std::atomic_ref(*to).fetch_add(value);
#endif
}

VLM_DEVICE inline void widen_shared(uint32_t* least, uint32_t* most, uint32_t value) {
#if defined(__CUDACC__)
  atomicMin(least, value);
  atomicMax(most, value);
#else
  const std::atomic_ref low(*least), high(*most);
  for (uint32_t now = low; value < now && !low.compare_exchange_weak(now, value);) continue;
  for (uint32_t now = high; value > now && !high.compare_exchange_weak(now, value);) continue;
#endif
}

/// All members are the same in every thread.
template <typename Block>
class RowSampler {
 public:
  VLM_DEVICE RowSampler(Block& block, SampleShared& shared, const SampleArgs& args, int64_t row)
      : block_(block),
        shared_(shared),
        logits_(args.logits + row * args.vocab_size),
        seen_(args.seen + row * args.seen_stride),
        vocab_(static_cast<int>(args.vocab_size)) {
    block_.phase([&](int thread) {
      if (thread == 0) shared_.options = args.table[row];
    });
    penalty_ = shared_.options.penalty;
    temperature_ = shared_.options.temperature;
    bans_ = shared_.options.bans;
  }

  struct Sampled {
    int token;
    float logprob;
  };
  VLM_DEVICE Sampled sampled() {
    const float none = value_of(0xFFFFFFFFu);
    find_best();
    const int likeliest = static_cast<int>(~static_cast<uint32_t>(shared_.prefix[0]));
    const float best = value_of(static_cast<uint32_t>(shared_.prefix[0] >> 32));
    const float highest = value_of(shared_.tops[0]);
    if (!is_number(highest) || !is_number(best)) return {0, none};
    const float normalizer = highest + log_sum(highest);
    int token = likeliest;
    if (shared_.options.sample != 0) {
      top_ = best / temperature_;
      if (!is_number(top_)) return {0, none};
      token = drawn();
    }
    return {token, logits_[token] - normalizer};
  }

 private:
  // Tokens further below the likeliest have no probability here.
  static constexpr float kRange = 32;
  static constexpr int kInFlight = 8;  // logits of a thread

  static VLM_DEVICE uint64_t mass(float distance) {
    return static_cast<uint64_t>(std::exp(-distance) * 0x1p43f);
  }

  VLM_DEVICE float score(int id, float logit) const {
    if (penalty_ != 1 && (seen_[id / 32] >> (id % 32) & 1u) != 0) {
      logit = logit < 0 ? rounded_product(logit, penalty_) : logit / penalty_;
    }
    for (int i = 0; i < bans_; ++i) {
      if (shared_.options.banned[i] == id) logit = -INFINITY;
    }
    return logit;
  }
  VLM_DEVICE float warped(int id, float logit) const { return score(id, logit) / temperature_; }

  VLM_DEVICE bool kept(int id, float warped) const {
    const uint32_t order = order_of(warped);
    return order > floor_ || (order == floor_ && id >= first_of_floor_);
  }

  // Calls see(id, logit) for every `stride`-th id.
  template <typename See>
  VLM_DEVICE void visit(int first, int end, int stride, const See& see) const {
    for (int start = first; start < end; start += stride * kInFlight) {
      float loaded[kInFlight];
      VLM_DEVICE_UNROLL
      for (int i = 0; i < kInFlight; ++i) {
        const int id = start + i * stride;
        loaded[i] = id < end ? logits_[id] : 0;
      }
      VLM_DEVICE_UNROLL
      for (int i = 0; i < kInFlight; ++i) {
        const int id = start + i * stride;
        if (id < end) see(id, loaded[i]);
      }
    }
  }

  // prefix[0]: the order of the best score, then its id's complement, so that the first of equals
  // wins; tops[0]: the order of the highest logit.
  VLM_DEVICE void find_best() {
    block_.phase([&](int thread) {
      uint64_t best = 0;
      uint32_t top = 0;
      visit(thread, vocab_, block_.threads(), [&](int id, float logit) {
        const uint64_t here =
            uint64_t{order_of(score(id, logit))} << 32 | ~static_cast<uint32_t>(id);
        if (here > best) best = here;
        const uint32_t order = order_of(logit);
        if (order > top) top = order;
      });
      shared_.prefix[thread] = best;
      shared_.bests[thread] = static_cast<uint32_t>(best >> 32);
      shared_.tops[thread] = top;
    });
    for (int left = block_.threads(), next = 32; left > 1; left = next, next = 1) {
      block_.phase([&](int thread) {
        for (int other = thread + next; thread < next && other < left; other += next) {
          if (shared_.prefix[other] > shared_.prefix[thread]) {
            shared_.prefix[thread] = shared_.prefix[other];
          }
          if (shared_.tops[other] > shared_.tops[thread]) {
            shared_.tops[thread] = shared_.tops[other];
          }
        }
      });
    }
  }

  // Of the raw logits, relative to the highest.
  VLM_DEVICE float log_sum(float highest) {
    block_.scan([&](int thread) {
      uint64_t sum = 0;
      visit(thread, vocab_, block_.threads(),
            [&](int, float logit) { sum += mass(highest - logit); });
      return sum;
    });
    return std::log(static_cast<float>(shared_.prefix[block_.threads()]) * 0x1p-43f);
  }

  VLM_DEVICE int drawn() {
    const SampleRow& options = shared_.options;
    if (options.top_k > 0) keep_top_k(static_cast<uint64_t>(options.top_k));
    if (options.left_out >= 0) keep_top_p(options.left_out);
    const float min_p = options.min_p;
    const double uniform = uniform_draw(options.seed, options.sequence, options.token, 0);
    return find(
        [&](int id, float logit) {
          const float here = warped(id, logit);
          const float distance = top_ - here;
          const bool counts = kept(id, here) && std::exp(-distance) >= min_p;
          return counts ? mass(distance) : 0;
        },
        [&](uint64_t total) {
          const auto point = static_cast<uint64_t>(uniform * static_cast<double>(total));
          return point < total ? point : total - 1;
        });
  }

  // Ties with the k-th best stay.
  VLM_DEVICE void keep_top_k(uint64_t k) {
    const bool found = cross(
        range_of_best(k), [](int, float) { return uint64_t{1}; }, [&](uint64_t) { return k - 1; });
    if (found) floor_ = shared_.crossing.least;
  }

  // The least likely go; of equals those with the lowest ids.
  VLM_DEVICE void keep_top_p(double left_out) {
    // So far below even all of them together are no more than what goes.
    const float range = std::log(static_cast<float>(vocab_) / static_cast<float>(left_out)) + 0.01f;
    const bool found = cross(
        range > 0 && range < kRange ? range : kRange,
        [&](int id, float here) { return kept(id, here) ? mass(top_ - here) : 0; },
        [&](uint64_t total) {
          const auto gone = static_cast<uint64_t>(static_cast<double>(total) * left_out);
          return gone < total ? total - gone - 1 : 0;
        });
    if (!found) return;
    const SampleShared::Crossing at = shared_.crossing;
    const uint64_t each = mass(top_ - value_of(at.least));
    const uint64_t gone = at.weight / each - (at.point / each + 1);
    floor_ = at.least;
    if (gone == 0) return;
    first_of_floor_ =
        find([&](int id,
                 float logit) { return order_of(warped(id, logit)) == at.least ? uint64_t{1} : 0; },
             [&](uint64_t) { return gone; });
  }

  // How far below the best score the k-th best lies at most.
  VLM_DEVICE float range_of_best(uint64_t k) {
    constexpr float kPerBin = kSampleBins / kRange;
    if (k > static_cast<uint64_t>(block_.threads())) return kRange;
    clear_bins();
    block_.phase([&](int thread) {
      const float distance = top_ - value_of(shared_.bests[thread]) / temperature_;
      if (distance < kRange) add(bin_of(distance, kPerBin), 0, 1);
    });
    add_up_bins();
    if (shared_.prefix[block_.threads()] < k) return kRange;
    settle(k - 1);
    return static_cast<float>(shared_.crossing.bin + 1) / kPerBin;
  }

  // Finds the score with which the sum of weights, from the likeliest on, comes to exceed
  // point_of(their sum): `least` and `most` of the crossing. False where that is further than
  // `range` below the top. weight(id, warped).
  template <typename Weight, typename PointOf>
  VLM_DEVICE bool cross(float range, const Weight& weight, const PointOf& point_of) {
    const float per_bin = kSampleBins / range;
    clear_bins();
    block_.scan([&](int thread) {
      uint64_t rest = 0;
      visit(thread, vocab_, block_.threads(), [&](int id, float logit) {
        const float here = warped(id, logit);
        const float distance = top_ - here;
        const uint64_t own = weight(id, here);
        if (!(distance < range)) {
          rest += own;
        } else if (own != 0) {
          add(bin_of(distance, per_bin), order_of(here), own);
        }
      });
      return rest;
    });
    const uint64_t rest = shared_.prefix[block_.threads()];
    add_up_bins();
    const uint64_t near = shared_.prefix[block_.threads()];
    const uint64_t point = point_of(near + rest);
    if (point >= near) return false;
    settle(point);
    while (shared_.crossing.least < shared_.crossing.most) narrow(weight);
    return true;
  }

  // One of the crossing's bins in finer ones.
  template <typename Weight>
  VLM_DEVICE void narrow(const Weight& weight) {
    const SampleShared::Crossing in = shared_.crossing;
    int shift = 0;
    while ((in.most - in.least) >> shift >= kSampleBins) ++shift;
    clear_bins();
    block_.phase([&](int thread) {
      visit(thread, vocab_, block_.threads(), [&](int id, float logit) {
        const float here = warped(id, logit);
        const uint32_t order = order_of(here);
        if (order < in.least || order > in.most) return;
        const uint64_t own = weight(id, here);
        if (own != 0) add(static_cast<int>((in.most - order) >> shift), order, own);
      });
    });
    add_up_bins();
    settle(in.point);
  }

  static VLM_DEVICE int bin_of(float distance, float per_bin) {
    const int bin = static_cast<int>(distance * per_bin);
    return bin < kSampleBins ? bin : kSampleBins - 1;
  }

  VLM_DEVICE void clear_bins() {
    block_.phase([&](int thread) {
      for (int bin = thread; bin < kSampleBins; bin += block_.threads()) {
        shared_.low[bin] = shared_.high[bin] = shared_.most[bin] = 0;
        shared_.least[bin] = 0xFFFFFFFFu;
      }
    });
  }

  VLM_DEVICE void add(int bin, uint32_t order, uint64_t weight) {
    const auto low = static_cast<uint32_t>(weight);
    const uint32_t before = add_shared(&shared_.low[bin], low);
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < before ? 1u : 0u);
    if (high != 0) add_shared(&shared_.high[bin], high);
    widen_shared(&shared_.least[bin], &shared_.most[bin], order);
  }

  VLM_DEVICE uint64_t bin_weight(int bin) const {
    return uint64_t{shared_.high[bin]} << 32 | shared_.low[bin];
  }
  VLM_DEVICE int bins_of_thread() const {
    return (kSampleBins + block_.threads() - 1) / block_.threads();
  }

  // prefix: of the bins of each thread.
  VLM_DEVICE void add_up_bins() {
    block_.scan([&](int thread) {
      uint64_t sum = 0;
      const int first = thread * bins_of_thread();
      for (int bin = first; bin < first + bins_of_thread() && bin < kSampleBins; ++bin) {
        sum += bin_weight(bin);
      }
      return sum;
    });
  }

  // Finds the bin with `point`, which is below the sum of all.
  VLM_DEVICE void settle(uint64_t point) {
    block_.phase([&](int thread) {
      if (point < shared_.prefix[thread] || point >= shared_.prefix[thread + 1]) return;
      uint64_t left = point - shared_.prefix[thread];
      int bin = thread * bins_of_thread();
      while (left >= bin_weight(bin)) left -= bin_weight(bin++);
      shared_.crossing = {bin, shared_.least[bin], shared_.most[bin], bin_weight(bin), left};
    });
  }

  // The first id up to which the weights sum up to more than point_of(the sum of all), which must
  // be less than that sum. weight(id, logit).
  template <typename Weight, typename PointOf>
  VLM_DEVICE int find(const Weight& weight, const PointOf& point_of) {
    const int groups = block_.threads() / kSampleGroup;
    int begin = 0, end = vocab_;
    uint64_t point = 0;
    for (bool whole = true;; whole = false) {
      const int share = (end - begin + groups - 1) / groups;
      const int size = (share + kSampleGroup - 1) / kSampleGroup * kSampleGroup;
      block_.scan([&](int thread) {
        const int first = begin + thread / kSampleGroup * size;
        const int last = first + size < end ? first + size : end;
        uint64_t sum = 0;
        visit(first + thread % kSampleGroup, last, kSampleGroup,
              [&](int id, float logit) { sum += weight(id, logit); });
        return sum;
      });
      if (whole) point = point_of(shared_.prefix[block_.threads()]);
      block_.phase([&](int thread) {
        if (thread % kSampleGroup != 0) return;
        const uint64_t before = shared_.prefix[thread];
        if (point < before || point >= shared_.prefix[thread + kSampleGroup]) return;
        shared_.part = {thread / kSampleGroup, point - before};
      });
      point = shared_.part.point;
      begin += shared_.part.group * size;
      if (begin + size < end) end = begin + size;
      if (size == kSampleGroup) break;
    }
    // So few that every thread may look at all of them.
    for (int id = begin; id < end; ++id) {
      const uint64_t own = weight(id, logits_[id]);
      if (point < own) return id;
      point -= own;
    }
    return end - 1;
  }

  Block& block_;
  SampleShared& shared_;
  const float* logits_;
  const uint32_t* seen_;
  int vocab_;
  float penalty_ = 1;
  float temperature_ = 1;
  int bans_ = 0;
  float top_ = 0;           // the best warped score
  uint32_t floor_ = 0;      // order of the least warped score that is kept
  int first_of_floor_ = 0;  // the first id with that score that is
};

/// Chooses the token of one row of `args`.
template <typename Block>
VLM_DEVICE void sample_row(Block& block, SampleShared& shared, const SampleArgs& args,
                           int64_t row) {
  RowSampler<Block> sampler(block, shared, args, row);
  const auto sampled = sampler.sampled();
  block.phase([&](int thread) {
    if (thread != 0) return;
    args.tokens[row] = sampled.token;
    args.logprobs[row] = sampled.logprob;
  });
}

}  // namespace vlm
