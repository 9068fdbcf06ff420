// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Stream time and the text pad's times: pure arithmetic on segments.

#include <gst/gst.h>

#include <optional>

#include "gstvlm-utils.h"
#include "gstvlmsilence.h"

namespace gstvlm {

/// The stream time of [pts, stop) in a segment of TIME format; nothing where none of it lies there.
/// Reentrant.
std::optional<Span> stream_times(const GstSegment& segment, uint64_t pts, uint64_t stop);

/// The segment of the text pad beside one of the video. Positions in it are stream time, which is
/// what subtitle encoders write as they find it; running times are those of the video, so that
/// muxers, overlays and sinks show a text together with its frames. With r and a for the video's
/// rate and applied rate, q for a position and p for the video's at the same stream time:
///
///   start = time = video.time                stream time where the segment begins
///   stop = time + (video.stop − video.start)·|a|
///   rate = r·a, applied rate = 1             how fast stream time passes, and whether backwards
///   offset = video.offset·|a|, base = video.base
///
/// From these follow stream time(q) = q and, in all four combinations of signs, running time(q) =
/// video's running time(p): forwards base + (q − start − offset)/|r·a|, backwards base + (stop −
/// offset − q)/|r·a|. Duration, flags and (as stream time) the position are kept.
///
/// A segment without stream time (not of TIME format, of unknown `time`, or of negative applied
/// rate without a stop) comes back as it is: nothing in it is described. Reentrant.
GstSegment text_segment(const GstSegment& video);

/// The same for a segment event; the sequence number is kept. One that is not of TIME format
/// becomes a plain one, since those behind the text pad still want to begin, and to end. Reentrant.
EventPtr text_segment_event(GstEvent* video);

}  // namespace gstvlm
