// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <functional>
#include <string>

#include "inputs.h"
#include "options.h"
#include "progress.h"
#include "record.h"
#include "vlm/error.h"

namespace describe {

/// Where the descriptions of a video go. An error ends the video with it. Called in the thread of
/// describe_video().
struct VideoReceiver {
  /// Once, before the first description; `live`: a source without an end.
  std::function<vlm::Status(bool live)> begin;
  std::function<vlm::Status(const Record& record)> add;
  /// True ends it with ErrorKind::kCancelled.
  std::function<bool()> unwanted;
};

/// Plays a video through vlmdescribe to its end, or until the user interrupts: a live source then
/// ends properly, a recording with ErrorKind::kCancelled. A source without an end that was there
/// and is lost is connected to again, which one line on standard error says. `trace_path` may be
/// empty. Errors complete the sentence "SOURCE: …"; those of ErrorKind::kIo name it themselves.
/// Thread-bound, and several may run at once, each in its thread; needs prepare_gstreamer().
vlm::Status describe_video(const Settings& settings, const Input& input,
                           const std::string& trace_path, const VideoReceiver& receiver,
                           Progress& progress);

}  // namespace describe
