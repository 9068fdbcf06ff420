// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include "gstvlmshared.h"

namespace gstvlm {

// What the element's pads say where GStreamer's own answers would not do. What answers a query
// returns whether it did; any thread.

/// Caps that `pad` takes, and whether it takes some: what the neighbour behind `other` does, past
/// the text pad, which GStreamer's own proxying would ask, too.
gboolean answer_caps(GstPad* pad, GstPad* other, GstQuery* query);
gboolean answer_accept_caps(GstPad* pad, GstPad* other, GstQuery* query);

/// The neighbours' agreement, to which meta-policy=exact adds the buffers that it holds.
gboolean answer_allocation(Shared& shared, GstPad* src, GstQuery* query);

/// Latency of the text pad: text with its window's own time comes after the window and the time to
/// describe it.
gboolean answer_text_latency(Shared& shared, GstPad* sink, GstQuery* query);

/// What that adds to the source's latency where the source is live. Reentrant.
GstClockTime text_latency(const Settings::Streaming& streaming);

/// Has the pipeline ask again where the source is live and somebody asks the text pad. Hold no
/// lock.
void announce_text_latency(Shared& shared, GstPad* sink);

}  // namespace gstvlm
