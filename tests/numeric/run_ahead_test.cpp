// SPDX-License-Identifier: LGPL-2.1-or-later
#include "decoder/run_ahead.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/failure.h"

namespace vlm {
namespace {

constexpr int64_t kVocab = 97;
constexpr int64_t kMaxRows = 8;

/// What goes on from `id` in `slot`.
int64_t next_token(int64_t id, int64_t slot) {
  return (31 * id + 7 * slot + 5) % kVocab;
}

/// A device on the host: what it chooses tells whether it had the right rows.
class FakeStep final : public DeviceStep {
 public:
  explicit FakeStep(StepBuffers& buffers) : buffers_(buffers) {}

  int64_t bucket(int64_t rows) const override {
    int64_t size = 1;
    while (size < rows) size *= 2;
    return size;
  }
  int32_t spare_slot() const override { return 99; }

  bool pick_likeliest(const std::vector<const std::vector<int64_t>*>&) override { return true; }
  bool pick(const std::vector<Choice>&) override { return false; }

  Ticket run() override {
    // As where memory is too short for what a bucket's first run needs: after the buffers.
    if (buffers_.rows() > most_rows) throw Failure(ErrorKind::kOutOfMemory, "no memory");
    logits_ = at::full({buffers_.rows(), kVocab}, -10.0f);
    Outcome& mine = outcomes_[static_cast<size_t>(++last_ % 2)];
    mine = {};
    for (int64_t row = 0; row < buffers_.rows(); ++row) {
      const int64_t token =
          next_token(buffers_.ids()[row].item<int64_t>(), buffers_.slots()[row].item<int64_t>());
      logits_[row][token] = 10.0f;
      mine.tokens.push_back(token);
      mine.logprobs.push_back(-1.0f);
    }
    return last_;
  }
  Ticket run_on(const std::vector<int32_t>& upcoming) override {
    ++runs_on;
    const Outcome& before = outcomes_[static_cast<size_t>(last_ % 2)];
    for (int64_t row = 0; row < buffers_.rows(); ++row) {
      const auto at = static_cast<size_t>(row);
      buffers_.ids()[row].fill_(before.tokens[at]);
      buffers_.slots()[row].fill_(upcoming[at] < 0 ? spare_slot() : upcoming[at]);
    }
    return run();
  }
  at::Tensor logits() const override { return logits_; }
  Picks picks(Ticket ticket) override {
    const Outcome& asked = outcomes_[static_cast<size_t>(ticket % 2)];
    return {asked.tokens.data(), asked.logprobs.data()};
  }

  int64_t most_rows = kMaxRows;
  int runs_on = 0;

 private:
  struct Outcome {
    std::vector<int64_t> tokens;
    std::vector<float> logprobs;
  };
  StepBuffers& buffers_;
  at::Tensor logits_;
  Ticket last_ = -1;
  std::array<Outcome, 2> outcomes_;
};

/// Sequences as the scheduler has them: each goes on in the slot that was kept for it.
class RunAheadTest : public ::testing::Test {
 protected:
  struct Sequence {
    int64_t id;
    SlotTable slots;
    int32_t upcoming;
  };

  Sequence begin(int32_t slot) { return {slot, {slot}, static_cast<int32_t>(slot + 1)}; }

  /// Steps them all; each must get the token that follows in its own row.
  void step(const std::vector<Sequence*>& sequences, bool drawn = false) {
    std::vector<DecodePart> decodes;
    std::vector<Choice> choices;
    for (const Sequence* sequence : sequences) {
      decodes.push_back({sequence->id, &sequence->slots, sequence->upcoming});
      Choice choice;
      choice.first_row = static_cast<int64_t>(choices.size());
      choice.next_alike = true;
      if (drawn && sequence == sequences.back()) {
        choice.sample = true;
        choice.top_k = 1;
      }
      choices.push_back(choice);
    }
    run_ahead_.start(decodes, choices, true);
    const std::vector<Chosen> chosen = run_ahead_.answer(choices);
    ASSERT_EQ(chosen.size(), sequences.size());
    for (size_t i = 0; i < sequences.size(); ++i) {
      Sequence& sequence = *sequences[i];
      ASSERT_EQ(chosen[i].candidates.size(), 1u) << i;
      EXPECT_EQ(chosen[i].candidates[0].token, next_token(sequence.id, sequence.slots.back())) << i;
      sequence.id = chosen[i].candidates[0].token;
      sequence.slots.push_back(std::exchange(sequence.upcoming, sequence.upcoming + 1));
    }
  }

  StepBuffers buffers_{kMaxRows, 32, at::kCPU};
  FakeStep device_{buffers_};
  Sampler sampler_{kMaxRows, at::kCPU};
  RunAhead run_ahead_{device_, buffers_, sampler_};
};

TEST_F(RunAheadTest, goes_on_before_it_is_asked_to) {
  Sequence one = begin(0), two = begin(10), three = begin(20);
  for (int i = 0; i < 3; ++i) step({&one, &two, &three});
  EXPECT_EQ(device_.runs_on, 3);
  for (int i = 0; i < 3; ++i) step({&one, &three});
}

TEST_F(RunAheadTest, starts_afresh_where_others_join) {
  Sequence one = begin(0), two = begin(10);
  step({&one});
  step({&two, &one});
  step({&two, &one}, true);
  step({&two, &one});
}

TEST_F(RunAheadTest, forgets_what_was_under_way_when_memory_runs_out) {
  Sequence one = begin(0), two = begin(10), three = begin(20), four = begin(30), five = begin(40);
  step({&one, &two, &three});
  device_.most_rows = 4;
  // Others join, and one draws its tokens from now on: too many rows for the memory.
  const std::vector<DecodePart> decodes = {{two.id, &two.slots, two.upcoming},
                                           {three.id, &three.slots, three.upcoming},
                                           {four.id, &four.slots, four.upcoming},
                                           {five.id, &five.slots, five.upcoming},
                                           {one.id, &one.slots, one.upcoming}};
  std::vector<Choice> choices(decodes.size());
  for (size_t i = 0; i < choices.size(); ++i) choices[i].first_row = static_cast<int64_t>(i);
  choices.back().sample = true;
  EXPECT_THROW(run_ahead_.start(decodes, choices, true), Failure);
  // The halves in turn, as the scheduler tries next.
  step({&two, &three});
  step({&four, &five, &one}, true);
}

}  // namespace
}  // namespace vlm
