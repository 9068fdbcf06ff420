// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The thread that prepares what the engine gets.

#include <memory>
#include <thread>

#include "gstvlmshared.h"

namespace gstvlm {

/// Takes windows from the dispatcher when the engine may have them, converts their frames and hands
/// them over. What a frame costs is paid here and not by the streaming thread. Thread-bound, except
/// that its own thread runs between start() and join().
class Feeder {
 public:
  explicit Feeder(Shared& shared) : shared_(shared) {}
  ~Feeder() { join(); }
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;

  void start();
  /// After Dispatcher::stop(); waits for the frame that is being converted.
  void join();

 private:
  void run();
  vlm::Status prepare(Work& work);
  FrameConverter& converter_for(const std::shared_ptr<const Look>& look);

  Shared& shared_;
  std::unique_ptr<FrameConverter> converter_;
  std::shared_ptr<const Look> converter_look_;
  std::thread thread_;
};

}  // namespace gstvlm
