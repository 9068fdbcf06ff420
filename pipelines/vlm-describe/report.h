// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

namespace describe {

/// One line of plain text: line breaks, tabs and other control characters become single spaces,
/// white space at both ends goes. Reentrant.
std::string one_line(const std::string& text);

/// Writes "vlm-describe: SENTENCE" as one line to standard error. Thread-safe.
void complain(const std::string& sentence);

}  // namespace describe
