// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/jinja/values.h"

namespace vlm::jinja {

/// What `source` prints with these variables set, as Hugging Face's environment renders chat
/// templates. Steps, nesting and output are bounded. Throws Failure: kUnsupported for what this
/// part of Jinja lacks, naming `file`, line and construct; NeedsText where a list is used as text;
/// kInvalidArgument with the template's own words where it calls raise_exception. Reentrant.
std::string render(std::string_view source, const std::string& file,
                   const std::map<std::string, Json>& variables);

}  // namespace vlm::jinja
