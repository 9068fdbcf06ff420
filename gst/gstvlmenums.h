// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// Enum types of the element's properties.

#include <glib-object.h>

namespace gstvlm {

enum class Mode { kAuto, kLive, kRecorded };
enum class TextTiming { kAuto, kWindow, kArrival };
enum class MetaPolicy { kNone, kLatest, kExact };
enum class OnError { kFail, kSkip };

// Registered at the first call. Thread-safe.
GType dtype_type();
GType quantization_type();
GType aspect_ratio_type();
GType early_stopping_type();
GType mode_type();
GType text_timing_type();
GType meta_policy_type();
GType on_error_type();

/// The GValue representation of an enum's value.
template <typename Enum>
constexpr gint nick(Enum value) {
  return static_cast<gint>(value);
}

}  // namespace gstvlm
