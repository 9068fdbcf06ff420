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

/// Where the descriptions of a video go. An error ends the video with it.
struct VideoReceiver {
  /// Once, before the first description; `live`: a source without an end.
  std::function<vlm::Status(bool live)> begin;
  std::function<vlm::Status(const Record& record)> add;
};

/// GStreamer, ready with the element vlmdescribe, from `plugin` where that file exists. Later calls
/// do nothing. Thread-bound.
vlm::Status prepare_gstreamer(const std::string& plugin);

/// Plays a video through vlmdescribe to its end, or until the user interrupts: a live source then
/// ends properly, a recording with ErrorKind::kCancelled. `trace_path` may be empty. Errors
/// complete the sentence "SOURCE: …". Thread-bound; needs prepare_gstreamer().
vlm::Status describe_video(const Settings& settings, const Input& input,
                           const std::string& trace_path, const VideoReceiver& receiver,
                           Progress& progress);

}  // namespace describe
