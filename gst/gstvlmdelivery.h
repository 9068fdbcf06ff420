// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The thread that brings results to where they are wanted.

#include <atomic>
#include <cstdint>
#include <thread>

#include "gstvlmshared.h"

namespace gstvlm {

/// Takes outcomes from the dispatcher, in order, and turns each description into the newest meta,
/// the element message, the property `last-description` and the text pad's text. Thread-bound,
/// except that its own thread runs between start() and join().
class Delivery {
 public:
  explicit Delivery(Shared& shared) : shared_(shared) {}
  ~Delivery() { join(); }
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;

  void start();
  /// After Dispatcher::stop(); waits for what is being delivered, but where its delivery is what
  /// stops the element: then nothing more is delivered.
  void join();

 private:
  void run(uint64_t turn);
  void handle(Outcome outcome);
  void described(const Outcome& outcome);
  void failed(const Outcome& outcome);
  void grown(const Outcome& outcome);
  void text_event(EventPtr event);
  void put_text(const Window& window, const GstStructure* structure, uint64_t latency_ns);
  void put_silence(const Window& window);
  bool stale(const Outcome& outcome) const { return outcome.epoch != shared_.dispatcher.epoch(); }

  Shared& shared_;
  std::thread thread_;
  std::atomic<uint64_t> turn_ = 0;  ///< another one where a thread was left to itself
};

}  // namespace gstvlm
