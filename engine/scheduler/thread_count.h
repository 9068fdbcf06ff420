// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace vlm {

/// How many threads compute the next decode step, learnt from how long steps take. All of a step's
/// threads wait for the last one several times, so beside a program that keeps one core busy fewer
/// threads are faster than one for each core. Now and then a few steps run with another count,
/// which is kept where it is clearly faster; what that loses is a small share of the time, next to
/// nothing while no step takes longer than usual. Only steps of equally many rows are compared.
/// Pure; not thread-safe.
class ThreadCount {
 public:
  /// What is measured before something is decided.
  struct Pace {
    int64_t steps = 2;   ///< in a window, at least: one long step alone may be a chance
    size_t windows = 3;  ///< before a trial
  };

  /// Counts from `least` to `most`, 1 or more, are tried; begins with `first` of them.
  ThreadCount(int least, int most, int first, Pace pace);
  ThreadCount(int least, int most) : ThreadCount(least, most, most, Pace()) {}

  int most() const { return rungs_.front(); }
  /// The count that steps outside trials run with.
  int kept() const { return rungs_[at_]; }
  /// For the next step, of so many rows.
  int next(int64_t rows) const;
  /// That step took so long, with next(rows) threads.
  void ran(int64_t rows, double seconds);

 private:
  static constexpr size_t kWindowsKept = 5;

  /// Steps of so many rows with the count that is kept.
  struct Level {
    double seconds = 0;  ///< of the window that is open
    int64_t steps = 0;
    std::array<double, kWindowsKept> means{};  ///< seconds a step, of the newest windows
    size_t windows = 0;
    double typical = 0;  ///< their median
    double usual = 0;    ///< follows it, up more slowly than down
    double measured_at = 0;

    void close_window(double now);
    bool slow() const;
  };
  /// Windows of steps with another count.
  struct Trial {
    size_t rung = 0;
    double seconds = 0, expected = 0;  ///< of the window that is open
    int64_t steps = 0;
    int faster = 0, slower = 0;  ///< windows
    double lost = 0;             ///< seconds
  };

  /// Null where the newest measure is old, or none.
  const Level* known(int64_t rows) const;
  void judge(double seconds, double expected);
  void end_trial(bool keep);
  void move_to(size_t rung);
  void start_trial_if_due(const Level& level);
  /// Rungs to try from the present one, in turn.
  std::vector<size_t> others() const;

  Pace pace_;
  std::vector<int> rungs_;  ///< falling
  size_t at_ = 0;
  std::map<int64_t, Level> levels_;  ///< by rows
  std::optional<Trial> trial_;
  std::optional<size_t> onward_;  ///< the rung behind one that has just won
  size_t turn_ = 0;
  size_t losses_ = 0;  ///< trials since one has won, or since slow steps became usual
  double now_ = 0;     ///< seconds of steps outside trials
  double trial_ended_ = 0;
  double lost_ = 0;  ///< seconds, by the last trial
};

/// The same for all that the model does. Prompts and pictures come seldom and may be long: they
/// have all threads while decode steps have. Where those are better off with fewer, they begin with
/// as many, and what they are faster with is found in the same way, since work in large pieces uses
/// what is left of a core that somebody else has, and work in small ones waits for it. Pure; not
/// thread-safe.
class StepThreads {
 public:
  enum class Kind : uint8_t { kDecode, kPrompt, kPictures };

  /// Counts from `least` to `most`, 1 or more; where not `of_all`, only of decode steps: the others
  /// have all threads.
  StepThreads(int least, int most, bool of_all = true)
      : least_(least), of_all_(of_all), decodes_(least, most) {}

  int most() const { return decodes_.most(); }
  /// For the next step of the kind, of so many rows, tokens or images.
  int next(Kind kind, int64_t size) const;
  /// That step took so long, with next(kind, size) threads.
  void ran(Kind kind, int64_t size, double seconds);

 private:
  bool have_all() const { return !of_all_ || decodes_.kept() == most(); }

  int least_;
  bool of_all_;
  ThreadCount decodes_;
  std::map<Kind, ThreadCount> others_;
};

}  // namespace vlm
