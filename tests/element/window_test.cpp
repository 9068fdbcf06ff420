// SPDX-License-Identifier: LGPL-2.1-or-later
#include "gstvlmsilence.h"
#include "gstvlmwindow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace gstvlm {
namespace {

constexpr uint64_t kUnknown = UINT64_MAX;
constexpr uint64_t kMs = 1000000;

/// A described window: [start, end) and the start times of its frames, all in milliseconds.
struct Described {
  uint64_t start, end;
  std::vector<uint64_t> frames;
  bool operator==(const Described&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Described& window) {
  out << "[" << window.start << ", " << window.end << ") with";
  for (const uint64_t frame : window.frames) {
    out << " " << frame;
  }
  return out;
}

/// Runs a picker the way the element does, and checks the order of its steps.
class Runner {
 public:
  Runner(uint64_t interval_ms, unsigned frames) : frames_(frames) {
    picker.set_rule({interval_ms * kMs, frames});
  }

  void frame(uint64_t start_ms, uint64_t duration_ms = 40, bool backwards = false) {
    const FrameTime time{start_ms * kMs, duration_ms == kUnknown ? kUnknown : duration_ms * kMs,
                         backwards};
    Steps steps;
    do {
      steps = picker.frame(time);
      run(steps, start_ms);
    } while (steps.more);
    last_ = picker.needs_last() ? start_ms : kUnknown;
  }
  void gap(uint64_t start_ms, uint64_t end_ms) {
    Steps steps;
    do {
      steps = picker.gap(start_ms * kMs, end_ms * kMs);
      run(steps, kUnknown);
    } while (steps.more);
  }
  void finish() {
    Steps steps;
    do {
      steps = picker.finish();
      run(steps, kUnknown);
    } while (steps.more);
  }
  void run(const Steps& steps, uint64_t current) {
    for (const Step& step : steps.list) {
      switch (step.kind) {
        case Step::Kind::kOpen:
          EXPECT_FALSE(open_);
          open_ = true;
          submitted_ = false;
          taken_.clear();
          break;
        case Step::Kind::kUseLast:
          ASSERT_NE(last_, kUnknown) << "the frame before was not kept";
          taken_.insert(taken_.end(), step.count, last_);
          break;
        case Step::Kind::kUseThis:
          ASSERT_NE(current, kUnknown);
          taken_.insert(taken_.end(), step.count, current);
          break;
        case Step::Kind::kSubmit:
          EXPECT_EQ(taken_.size(), frames_);
          EXPECT_FALSE(submitted_);
          submitted_ = true;
          ++submissions;
          break;
        case Step::Kind::kClose:
          EXPECT_TRUE(open_ && submitted_) << "a window was lost";
          open_ = false;
          windows.push_back({step.start_ns / kMs, step.end_ns / kMs, taken_});
          break;
        case Step::Kind::kPass:
          EXPECT_FALSE(open_);
          passed_over += step.windows;
          passed.push_back({step.start_ns / kMs, step.end_ns / kMs, {}});
          break;
      }
    }
  }

  WindowPicker picker;
  std::vector<Described> windows;
  std::vector<Described> passed;
  uint64_t passed_over = 0;
  int submissions = 0;

 private:
  unsigned frames_;
  bool open_ = false;
  bool submitted_ = false;
  std::vector<uint64_t> taken_;
  uint64_t last_ = kUnknown;
};

using Windows = std::vector<Described>;

TEST(Window, middle_of_each_interval_is_taken) {
  Runner runner(1000, 1);
  for (uint64_t t = 0; t < 2000; t += 40) {
    runner.frame(t);
  }
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 1000, {520}}, {1000, 2000, {1520}}}));
}

TEST(Window, frames_are_submitted_before_the_window_ends) {
  Runner runner(1000, 1);
  runner.frame(0);
  runner.frame(480);
  EXPECT_EQ(runner.submissions, 0);
  runner.frame(500);
  EXPECT_EQ(runner.submissions, 1);
  EXPECT_TRUE(runner.windows.empty());
}

TEST(Window, several_frames_are_spread_evenly) {
  Runner runner(2000, 4);
  for (uint64_t t = 0; t < 2000; t += 10) {
    runner.frame(t, 10);
  }
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 2000, {250, 750, 1250, 1750}}}));
}

TEST(Window, slow_video_fills_several_places_with_one_frame) {
  Runner runner(2000, 4);
  runner.frame(0, 1000);
  runner.frame(1000, 1000);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 2000, {1000, 1000, 1000, 1000}}}));
}

TEST(Window, partial_last_window_takes_the_last_frame) {
  Runner runner(2000, 2);
  for (uint64_t t = 0; t < 2600; t += 40) {
    runner.frame(t);
  }
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 2000, {520, 1520}}, {2000, 2600, {2520, 2560}}}));
}

TEST(Window, single_frame_is_a_window) {
  Runner runner(2000, 3);
  runner.frame(0);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 40, {0, 0, 0}}}));
}

// A picture, say: a text of no duration would never be shown.
TEST(Window, single_frame_of_unknown_duration_is_shown_for_a_window) {
  Runner runner(2000, 1);
  runner.frame(0, kUnknown);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 2000, {0}}}));
  Runner late(2000, 1);
  late.frame(4500, kUnknown);
  late.finish();
  EXPECT_EQ(late.windows, (Windows{{4500, 6000, {4500}}}));
}

TEST(Window, start_is_clipped_to_the_first_frame) {
  Runner runner(2000, 1);
  runner.frame(700);
  runner.frame(1500);
  runner.finish();
  EXPECT_EQ(runner.windows.front().start, 700u);
}

TEST(Window, frame_across_the_boundary_does_not_make_a_window) {
  Runner runner(1000, 1);
  for (int i = 0; i < 30; ++i) {
    runner.frame(static_cast<uint64_t>(i) * 1001 / 30, 34);
  }
  runner.finish();
  ASSERT_EQ(runner.windows.size(), 1u);
  EXPECT_EQ(runner.windows.front().end, 1000u);
}

TEST(Window, frame_that_lasts_is_described_in_each_window_it_is_shown) {
  Runner runner(2000, 1);
  runner.frame(0, 10000);
  runner.frame(10000, 40);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 2000, {0}},
                                     {2000, 4000, {0}},
                                     {4000, 6000, {0}},
                                     {6000, 8000, {0}},
                                     {8000, 10000, {0}},
                                     {10000, 10040, {10000}}}));
}

TEST(Window, frame_of_unknown_duration_lasts_until_the_next) {
  Runner runner(2000, 1);
  runner.frame(0, kUnknown);
  runner.frame(5500, kUnknown);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 2000, {0}}, {2000, 4000, {0}}, {4000, 6000, {5500}}}));
}

TEST(Window, hour_long_frame_comes_in_portions) {
  Runner runner(1000, 1);
  runner.frame(0, 3600 * 1000);
  runner.frame(3600 * 1000);
  runner.finish();
  EXPECT_EQ(runner.windows.size(), 3601u);
}

TEST(Window, newest_wins_over_all_but_the_last_windows_of_a_long_frame) {
  Runner runner(1000, 1);
  runner.picker.set_rule({1000 * kMs, 1, true});
  runner.frame(0, kUnknown);
  runner.frame(100 * 1000 + 300, kUnknown);
  runner.finish();
  EXPECT_EQ(runner.passed, (Windows{{1000, 36 * 1000, {}}}));
  EXPECT_EQ(runner.passed_over, 35u);
  ASSERT_EQ(runner.windows.size(), 66u);
  EXPECT_EQ(runner.windows[0], (Described{0, 1000, {0}}));
  EXPECT_EQ(runner.windows[1], (Described{36 * 1000, 37 * 1000, {0}}));
  EXPECT_EQ(runner.windows[64], (Described{99 * 1000, 100 * 1000, {0}}));
  EXPECT_EQ(runner.windows[65].frames, std::vector<uint64_t>{100 * 1000 + 300});
}

TEST(Window, few_windows_of_a_long_frame_are_all_told_where_the_newest_wins) {
  Runner runner(1000, 1);
  runner.picker.set_rule({1000 * kMs, 1, true});
  runner.frame(0, 65 * 1000);
  runner.frame(65 * 1000);
  runner.finish();
  EXPECT_EQ(runner.windows.size(), 66u);
  EXPECT_TRUE(runner.passed.empty());
}

// As many as there are nanoseconds, at the far end of time too: none of it takes a step for each.
TEST(Window, windows_without_number_are_passed_over_at_once) {
  WindowPicker picker;
  picker.set_rule({1, 1, true});
  uint64_t windows = 0;
  const auto count = [&](const Steps& steps) {
    EXPECT_LT(steps.list.size(), 300u);
    for (const Step& step : steps.list) {
      windows += step.windows + (step.kind == Step::Kind::kSubmit ? 1 : 0);
    }
    return steps.more;
  };
  for (const uint64_t at : {uint64_t{0}, UINT64_MAX / 2, UINT64_MAX - 10}) {
    int calls = 1;
    while (count(picker.frame({at, kUnknown}))) {
      ++calls;
    }
    EXPECT_LE(calls, 3);
  }
  while (count(picker.gap(UINT64_MAX - 2, UINT64_MAX - 1))) {
  }
  EXPECT_EQ(windows, UINT64_MAX - 2);
}

TEST(Window, hole_leaves_windows_out) {
  Runner runner(1000, 1);
  runner.frame(0);
  runner.frame(40);
  runner.frame(7200);
  runner.frame(7600);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 80, {40}}, {7200, 7640, {7600}}}));
}

TEST(Window, gap_event_closes_windows_it_leaves) {
  Runner runner(1000, 2);
  runner.frame(0);
  runner.frame(300);
  runner.gap(340, 2500);
  EXPECT_EQ(runner.windows, (Windows{{0, 340, {300, 300}}}));
  runner.frame(2500);
  runner.frame(2900);
  runner.finish();
  EXPECT_EQ(runner.windows.back(), (Described{2500, 2940, {2500, 2900}}));
}

TEST(Window, short_gap_does_not_end_a_window) {
  Runner runner(1000, 1);
  runner.frame(0);
  runner.gap(40, 200);
  runner.frame(200);
  EXPECT_TRUE(runner.windows.empty());
  runner.frame(500);
  EXPECT_EQ(runner.submissions, 1);
}

TEST(Window, gap_within_the_time_of_a_frame_is_none) {
  Runner runner(1000, 1);
  runner.frame(0, 3000);
  runner.gap(500, 2000);
  EXPECT_TRUE(runner.windows.empty());
  runner.gap(2500, 6000);
  EXPECT_EQ(runner.windows, (Windows{{0, 1000, {0}}, {1000, 2000, {0}}, {2000, 3000, {0}}}));
}

TEST(Silence, holds_until_a_frame_bears_it_out) {
  Silence silence;
  EXPECT_EQ(silence.frame(10, kUnknown), std::nullopt);
  EXPECT_EQ(silence.add({100, 200}), std::nullopt);
  EXPECT_EQ(silence.add({200, 500}), std::nullopt);
  EXPECT_EQ(silence.frame(90, kUnknown), std::nullopt);
  EXPECT_EQ(silence.frame(100, kUnknown), std::nullopt);
  EXPECT_EQ(silence.frame(250, kUnknown), (Span{100, 250}));
  EXPECT_EQ(silence.frame(300, kUnknown), (Span{250, 300}));
  EXPECT_EQ(silence.frame(600, kUnknown), (Span{300, 500}));
  EXPECT_EQ(silence.frame(700, kUnknown), std::nullopt);
  silence.add({800, 900});
  EXPECT_EQ(silence.end(), (Span{800, 900}));
  silence.add({800, 900});
  silence.clear();
  EXPECT_EQ(silence.end(), std::nullopt);
}

TEST(Silence, takes_nothing_from_what_frames_claim) {
  Silence silence;
  silence.add({50, 130});
  EXPECT_EQ(silence.frame(0, 30), std::nullopt);
  // Rounded times are no hole, nor is one lost frame.
  EXPECT_EQ(silence.frame(31, 29), std::nullopt);
  EXPECT_EQ(silence.frame(89, 30), std::nullopt);
  EXPECT_EQ(silence.frame(200, 30), (Span{119, 130}));
  silence.add({210, 225});
  EXPECT_EQ(silence.frame(300, 30), std::nullopt);
  silence.add({305, 335});
  EXPECT_EQ(silence.end(), (Span{330, 335}));
}

TEST(Silence, does_not_grow_without_end) {
  Silence silence;
  const uint64_t most = Silence::kMostHeld;
  EXPECT_EQ(silence.add({0, most}), std::nullopt);
  EXPECT_EQ(silence.add({most, most + 50}), (Span{0, 50}));
  EXPECT_EQ(silence.add({most + 50, most + 60}), (Span{50, 60}));
  EXPECT_EQ(silence.end(), (Span{60, most + 60}));
}

TEST(Window, every_frame_is_a_window_without_interval) {
  Runner runner(0, 1);
  runner.frame(0, kUnknown);
  runner.frame(33, 33);
  runner.frame(66, 33);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 33, {0}}, {33, 66, {33}}, {66, 99, {66}}}));
}

TEST(Window, jump_back_starts_again) {
  Runner runner(1000, 1);
  runner.frame(5000);
  runner.frame(5600);
  runner.frame(0);
  runner.frame(600);
  runner.finish();
  ASSERT_EQ(runner.windows.size(), 2u);
  EXPECT_EQ(runner.windows[0].frames, std::vector<uint64_t>{5600});
  EXPECT_EQ(runner.windows[1].frames, std::vector<uint64_t>{600});
}

TEST(Window, frame_slightly_out_of_order_opens_nothing) {
  Runner runner(1000, 1);
  for (const uint64_t t : {880, 920, 1000, 960, 1040, 1520}) {
    runner.frame(t);
  }
  runner.finish();
  EXPECT_EQ(runner.windows.size(), 2u);
}

TEST(Window, backwards_is_mirrored) {
  Runner runner(1000, 2);
  for (int t = 1960; t >= 0; t -= 40) {
    runner.frame(static_cast<uint64_t>(t), 40, true);
  }
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{1000, 2000, {1720, 1240}}, {0, 1000, {720, 240}}}));
}

TEST(Window, change_of_rule_waits_for_the_next_window) {
  Runner runner(1000, 1);
  runner.frame(0);
  runner.picker.set_rule({400 * kMs, 1});
  for (uint64_t t = 40; t < 2000; t += 40) {
    runner.frame(t);
  }
  runner.finish();
  EXPECT_EQ(
      runner.windows,
      (Windows{
          {0, 1000, {520}}, {1000, 1200, {1000}}, {1200, 1600, {1400}}, {1600, 2000, {1800}}}));
}

TEST(Window, every_frame_is_one_from_the_end_of_the_window_on_where_the_interval_becomes_none) {
  Runner runner(400, 1);
  runner.frame(0);
  runner.frame(40);
  runner.picker.set_rule({0, 1});
  for (uint64_t t = 80; t < 480; t += 40) {
    runner.frame(t);
  }
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 400, {200}}, {400, 440, {400}}, {440, 480, {440}}}));
}

TEST(Window, every_frame_is_one_at_once_where_the_interval_becomes_none_at_a_jump) {
  Runner runner(1000, 1);
  runner.frame(0);
  runner.picker.set_rule({0, 1});
  runner.frame(7000);
  runner.finish();
  EXPECT_EQ(runner.windows, (Windows{{0, 40, {0}}, {7000, 7040, {7000}}}));
}

TEST(Window, interrupt_forgets_what_was_not_submitted) {
  Runner runner(1000, 1);
  runner.frame(0);
  EXPECT_TRUE(runner.picker.interrupt().list.empty());
  EXPECT_EQ(runner.picker.open_serial(), UINT64_MAX);
}

TEST(Window, interrupt_closes_what_was_submitted) {
  Runner runner(1000, 1);
  runner.frame(0);
  runner.frame(520);
  runner.run(runner.picker.interrupt(), kUnknown);
  EXPECT_EQ(runner.windows, (Windows{{0, 560, {520}}}));
}

TEST(Window, largest_interval_and_times_do_not_overflow) {
  WindowPicker picker;
  picker.set_rule({INT64_MAX, UINT16_MAX});
  picker.frame({UINT64_MAX - 1, UINT64_MAX - 1, false});
  picker.frame({0, UINT64_MAX - 1, false});
  picker.finish();
}

// Whatever the frame rate: no window overlaps another, every frame lies in exactly one, and all
// frames of a window come from it or were still shown in it.
TEST(Window, random_streams_are_covered_without_overlap) {
  std::mt19937_64 random(20260101);
  for (int round = 0; round < 500; ++round) {
    const uint64_t interval = 1 + random() % 3000;
    const unsigned frames = 1 + static_cast<unsigned>(random() % 5);
    const uint64_t longest = 1 + random() % 2500;
    SCOPED_TRACE("round " + std::to_string(round));
    Runner runner(interval, frames);
    uint64_t time = random() % 10000;
    const uint64_t begin = time;
    for (int i = 0; i < 60; ++i) {
      const uint64_t duration = 1 + random() % longest;
      runner.frame(time, duration);
      time += duration;
    }
    runner.finish();
    ASSERT_FALSE(runner.windows.empty());
    EXPECT_EQ(runner.windows.front().start, begin);
    for (size_t i = 0; i < runner.windows.size(); ++i) {
      const Described& window = runner.windows[i];
      EXPECT_LE(window.end - window.start, interval);
      EXPECT_EQ(window.start / interval, (window.end - 1) / interval) << window;
      EXPECT_EQ(window.frames.size(), frames);
      EXPECT_TRUE(std::is_sorted(window.frames.begin(), window.frames.end()));
      EXPECT_LT(window.frames.back(), window.end) << window;
      if (i > 0) {
        EXPECT_GE(window.start, runner.windows[i - 1].end);
      }
    }
  }
}

}  // namespace
}  // namespace gstvlm
