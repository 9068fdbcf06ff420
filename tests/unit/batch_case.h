// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fake_model.h"
#include "scheduler/batch.h"

namespace vlm::test {

/// A Batch driven by hand, and what its requests ended with.
class BatchTest : public ::testing::Test {
 protected:
  void open(int64_t rows = 8, int64_t slots = 400, int64_t context = 100) {
    executor_ = std::make_unique<FakeExecutor>(rows, slots, context);
    batch_ = std::make_unique<Batch>(*executor_, tokenizer_);
    slots_ = slots;
  }

  /// Adds a request; its outcome lands in results_ at the returned place.
  size_t add(Request request) {
    const size_t place = results_.size();
    results_.emplace_back();
    Callbacks callbacks;
    callbacks.done = [this, place](Result<Description> result) {
      EXPECT_FALSE(results_[place].has_value()) << "done twice";
      results_[place] = std::move(result);
      order_.push_back(place);
    };
    GenerationDefaults defaults;
    defaults.eos_ids = {kEos};
    auto settings = resolve_options(request.options, defaults);
    settings->sequence = request.sequence;
    auto job = std::make_unique<Job>(place + 1, std::move(request), std::move(callbacks),
                                     std::move(*settings));
    job->prepare(preparer_, executor_->info().context_length);
    batch_->add(std::move(job));
    return place;
  }

  void run_all() {
    while (!batch_->idle()) {
      batch_->step();
    }
    EXPECT_EQ(batch_->free_slots(), slots_);
  }

  Error error_of(size_t place) {
    if (!results_.at(place) || results_[place]->ok()) {
      ADD_FAILURE() << "request " << place << " did not fail";
      return {};
    }
    return results_[place]->error();
  }
  Description description_of(size_t place) {
    if (!results_.at(place) || !results_[place]->ok()) {
      ADD_FAILURE() << "request " << place << " has no description: "
                    << (results_[place] ? results_[place]->error().message : "no result");
      return {};
    }
    return results_[place]->value();
  }

  FakeTokenizer tokenizer_;
  FakePreparer preparer_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<Batch> batch_;
  int64_t slots_ = 0;
  std::vector<std::optional<Result<Description>>> results_;
  std::vector<size_t> order_;
};

}  // namespace vlm::test
