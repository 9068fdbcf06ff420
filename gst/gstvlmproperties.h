// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

// What the element's properties are: names, ranges, meanings. Their values live in Settings.

#include <gst/gst.h>

#include "gstvlmsettings.h"

namespace gstvlm {

constexpr GParamFlags property_flags(int mutability) {
  return static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | mutability);
}

/// Takes effect with the next change from NULL or READY.
inline constexpr GParamFlags kReady = property_flags(GST_PARAM_MUTABLE_READY);
/// Takes effect at once, or for the next window.
inline constexpr GParamFlags kPlaying = property_flags(GST_PARAM_MUTABLE_PLAYING);
inline constexpr GParamFlags kControllable =
    property_flags(GST_PARAM_MUTABLE_PLAYING | GST_PARAM_CONTROLLABLE);

/// Installs every property on the element's class. Once.
void install_properties(GObjectClass* klass);

/// Those of text generation, a part of the above.
void install_generation(GObjectClass* klass);

}  // namespace gstvlm
