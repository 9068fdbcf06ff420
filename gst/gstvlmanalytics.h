// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// The description in GStreamer's own analytics metadata, where the GStreamer that this is built
// with has it (1.24 and later).

#include "gstvlm-utils.h"

namespace gstvlm {

/// Adds the text of a description, with the mean probability of its tokens as confidence, to the
/// GstAnalyticsRelationMeta of `buffer`, which must be writable: as a GstAnalyticsTextMtd where
/// GStreamer has that, else as a Mtd of the type `vlm-description`, whose data are a gfloat (the
/// confidence) and the NUL-terminated UTF-8 text behind it. Does nothing with an older GStreamer.
void attach_analytics(GstBuffer* buffer, const GstStructure* structure);

}  // namespace gstvlm
