// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <optional>
#include <string>

#include "record.h"

namespace describe {

/// The element's message `vlm-description`, posted with details=true, as a record; null where
/// `structure` is something else or only partial text. Times count from the beginning of the video,
/// of a `live` source from when it was first played. Reentrant.
std::optional<Record> to_record(const GstStructure* structure, const std::string& source,
                                bool live);

}  // namespace describe
