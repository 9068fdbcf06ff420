// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// From frames to windows to requests: does what the WindowPicker says.

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "gstvlmpicture.h"
#include "gstvlmshared.h"
#include "gstvlmwindow.h"

namespace gstvlm {

/// When and where in the stream a buffer is.
struct Moment {
  uint64_t pts = 0;             ///< buffer time, clipped to the segment
  uint64_t duration = kNoTime;  ///< buffer time
  uint64_t running_time = kNoTime;
  FrameTime time;          ///< stream time
  int64_t arrival_us = 0;  ///< monotonic_us()
  std::optional<int64_t> utc_us;
};

/// Chooses frames, keeps the chosen ones and offers their windows to the dispatcher. All calls
/// but describe_now() are the streaming thread's, and in recorded mode may wait. They return
/// GST_FLOW_FLUSHING where a flush or a stop ended that, GST_FLOW_ERROR where an error was posted.
class Sampler {
 public:
  explicit Sampler(Shared& shared) : shared_(shared) {}

  void set_look(const Look& look) { look_ = std::make_shared<const Look>(look); }
  void set_segment(const GstSegment& segment) { segment_ = segment; }

  GstFlowReturn frame(GstBuffer* buffer, const Moment& moment);
  GstFlowReturn gap(uint64_t start_ns, uint64_t end_ns);
  GstFlowReturn finish();
  GstFlowReturn interrupt();
  void reset();

  /// Gives back what is kept of other elements' buffers; a copy stays in its place.
  void give_back();

  /// Lets go of what is kept of other elements' buffers, and of memory. After the last frame.
  void release();

  /// Describes the newest frame where it is at hand, else the next one. Any thread.
  void describe_now();

  /// Serial of the window that the last frame belongs to; kNoTime where there is none.
  uint64_t open_serial() const { return picker_.open_serial(); }
  /// The same for the frame or gap given last, even if its window is closed already.
  uint64_t frame_serial() const { return frame_serial_; }

 private:
  /// A frame that may still be wanted.
  struct Candidate {
    std::shared_ptr<Picture> picture;
    Moment moment;
  };
  struct Open {
    uint64_t serial = kNoTime;
    Settings settings;
    std::vector<Candidate> chosen;
    bool blind = false;   // live, and the model is not loaded
    bool broken = false;  // a frame could not be read
  };

  GstFlowReturn run(const Steps& steps, Candidate* current);
  GstFlowReturn choose(Candidate* candidate, unsigned count);
  GstFlowReturn submit(const Step& step);
  void close(const Step& step);
  GstFlowReturn pass_over(const Step& step);
  EventPtr silence(const Times& times) const;
  vlm::Status has_room() const;
  GstFlowReturn refuse(const vlm::Error& error);
  Job make_job(const Settings& settings, std::vector<Candidate> chosen, bool extra);
  Offer offer_extra(const Candidate& candidate);
  void keep(Candidate candidate);
  Times times(uint64_t start_ns, uint64_t end_ns) const;
  Candidate* last();

  Shared& shared_;
  std::shared_ptr<const Look> look_ = std::make_shared<const Look>();
  GstSegment segment_{};
  WindowPicker picker_;
  uint64_t frame_serial_ = kNoTime;
  Open open_;
  std::atomic<bool> now_ = false;
  Copies copies_;

  // The streaming thread's; describe_now() reads it.
  Mutex last_mutex_;
  std::optional<Candidate> last_ GSTVLM_GUARDED_BY(last_mutex_);
};

/// The flow return for what became of an offer.
GstFlowReturn flow_of(Offer offer);

}  // namespace gstvlm
