// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

namespace describe {

/// Whether a pad anywhere in `bin` has a task that runs, waiting for room or data included. Threads
/// that elements start without a pad's task are not seen. Any thread.
bool has_running_task(GstBin* bin);

}  // namespace describe
