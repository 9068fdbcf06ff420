// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <string>

#include "options.h"
#include "vlm/error.h"

namespace describe {

/// Sets vlmdescribe's properties from the command line: what was not given stays at the element's
/// default. `trace_path` may be empty. Fails where the plugin lacks a property.
vlm::Status configure_element(GstElement* element, const Settings& settings,
                              const std::string& trace_path);

}  // namespace describe
